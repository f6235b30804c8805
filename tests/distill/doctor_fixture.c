// See doctor_fixture.h.
#include "tests/distill/doctor_fixture.h"

#include "kernels/model/safetensors.h"

// ---- folders --------------------------------------------------------------------------------------------------------------------------

static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                    "tokenizer_config.json"};

const char *copy_of(const char *model)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    for (int i = 0; i < 5; i++) {
        char *from = path_join(model, files[i]), *to = path_join(dir, files[i]);
        ck_ok(file_copy(from, to, &err));
        mem_free(from);
        mem_free(to);
    }
    return dir;
}

void put(const char *dir, const char *name, const char *text)
{
    struct err err = {0};
    char *path = path_join(dir, name);
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    mem_free(path);
}

void drop(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    ck_assert_int_eq(remove(path), 0);
    mem_free(path);
}

json_t *json_of_file(const char *dir, const char *name)
{
    struct err err = {0};
    char *path = path_join(dir, name);
    json_t *root;
    ck_ok(json_read(&root, path, &err));
    mem_free(path);
    return root;
}

void write_json(const char *dir, const char *name, json_t *root) // steals
{
    struct err err = {0};
    char *path = path_join(dir, name);
    ck_ok(json_write_atomic(root, path, &err));
    json_decref(root);
    mem_free(path);
}

void set(const char *dir, const char *name, const char *key, const char *value)
{
    json_t *root = json_of_file(dir, name), *v = NULL;
    if (!strcmp(value, "-"))
        json_object_del(root, key);
    else {
        ck_assert_msg((v = json_loads(value, JSON_DECODE_ANY, NULL)) != NULL, "%s is no JSON", value);
        json_object_set_new(root, key, v);
    }
    write_json(dir, name, root);
}

void set_template(const char *dir, const char *text)
{
    put(dir, "chat_template.jinja", text);
}

void rewrite(const char *dir, struct rewrite how)
{
    struct err err = {0};
    struct st_set set;
    struct st_writer *w;
    ck_ok(st_open_dir(&set, dir, &err));
    char *path = path_join(dir, "model.safetensors");
    const struct st_tensor *embed = st_find(&set, "model.embed_tokens.weight");
    ck_ok(st_create(&w, path, &err));
    for (size_t i = 0; i < set.n; i++)
        if (!how.without || strcmp(set.v[i].name, how.without) != 0) {
            bool odd = how.embed_as_i32 && &set.v[i] == embed; // two values of BF16 in one of I32
            int64_t shape[2] = {set.v[i].shape[0], odd ? set.v[i].shape[1] / 2 : set.v[i].shape[1]};
            st_declare(w, set.v[i].name, odd ? "I32" : set.v[i].dtype, set.v[i].rank, shape);
        }
    if (how.head) st_declare(w, "lm_head.weight", embed->dtype, embed->rank, embed->shape);
    ck_ok(st_begin(w, &err));
    for (size_t i = 0; i < set.n; i++) {
        if (how.without && !strcmp(set.v[i].name, how.without)) continue;
        uint16_t *data = mem_alloc(set.v[i].size_bytes);
        memcpy(data, set.v[i].data, set.v[i].size_bytes);
        for (size_t k = 0; how.fill && !strcmp(how.fill, set.v[i].name) && k < set.v[i].size_bytes / 2; k++) data[k] = how.value;
        ck_ok(st_put(w, data, set.v[i].size_bytes, &err));
        mem_free(data);
    }
    if (how.head) {
        uint8_t *data = mem_alloc(embed->size_bytes);
        memcpy(data, embed->data, embed->size_bytes);
        if (how.head_differs) data[0] ^= 1;
        ck_ok(st_put(w, data, embed->size_bytes, &err));
        mem_free(data);
    }
    ck_ok(st_finish(w, &err));
    mem_free(path);
    st_close(&set);
}

const char *gguf_of(const char *model, const char *type)
{
    struct err err = {0};
    struct options *o;
    static char path[2][512]; // a teacher's and a student's
    static int n;
    char *out = path[n++ % 2], *argv[] = {"--model", (char *)(uintptr_t)model, "--gguf", out, "--type", (char *)(uintptr_t)type, "--quiet"};
    snprintf(out, sizeof path[0], "%s/model.gguf", test_tmpdir());
    ck_ok(options_parse(&o, &command_export, 7, argv, &err));
    ck_ok(command_export.run(o, &err));
    options_free(o);
    return out;
}

// ---- running --------------------------------------------------------------------------------------------------------------------------

static struct options *options; // of the run in hand: findings refer to them
struct findings all;

void close_run(void)
{
    findings_free(&all);
    options_free(options);
    options = NULL;
}

enum status try_run(struct err *err, const char *const *args)
{
    char *argv[20];
    int n = 0;
    close_run();
    for (; args[n]; n++) argv[n] = (char *)(uintptr_t)args[n];
    enum status st = options_parse(&options, &command_doctor, n, argv, err);
    return st ? st : doctor_examine(options, &all, err);
}
void must_run(const char *const *args)
{
    struct err err = {0};
    ck_ok(try_run(&err, args));
}
const struct finding *find(const char *check)
{
    for (size_t i = 0; i < all.n; i++)
        if (!strcmp(all.v[i].check, check)) return &all.v[i];
    ck_abort_msg("no finding of %s", check);
}

void expect(const char *check, enum verdict v, const char *part)
{
    const struct finding *f = find(check);
    const char *found = f->found.size ? f->found.data : "", *mend = f->fix.size ? f->fix.data : "";
    ck_assert_msg(f->verdict == v, "%s: verdict %d, wanted %d: %s / %s", check, f->verdict, v, found, mend);
    ck_assert_msg(strstr(found, part) || strstr(mend, part), "%s: \"%s\" is in neither \"%s\" nor \"%s\"", check, part, found, mend);
    if (v >= V_WARN) ck_assert_msg(f->fix.size > 0, "%s: no fix beside \"%s\"", check, found);
}

double numbered(const char *check, const char *key)
{
    return json_number_value(json_object_get(find(check)->numbers, key));
}

void set_keys(const char *dir, const char *keys)
{
    char file[64], key[64], value[256];
    for (int n; keys && *keys; keys += n) {
        n = 0;
        ck_assert_msg(sscanf(keys, "%63s %63s %255[^\n]\n%n", file, key, value, &n) == 3 && n, "%s", keys);
        set(dir, file, key, value);
    }
}

void check_case(const struct doctor_case *c)
{
    const char *s = copy_of(STUDENT);
    set_keys(s, c->keys);
    if (c->template) set_template(s, c->template);
    RUN_STUDENT(s);
    expect(c->check, c->verdict, c->part);
}
