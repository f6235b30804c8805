// distill tokenize: text to token ids and back, line by line, with a model's own tokenizer and chat template. Needs no weights.
#include "distill/chat_options.h"
#include "distill/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
static const struct option options[] = {
    {"model", OPT_STRING, .value = "DIR", .required = true, .help = "the model: a Hugging Face directory or a GGUF file, of which only the tokenizer's files are read"},
    {"decode", OPT_BOOL, .help = "the reverse: arrays of ids in, strings out, special tokens kept"},
    {"special", OPT_BOOL, .help = "also the ids that the tokenizer's post-processor puts around a text (a BOS, say)"},
    {"chat", OPT_BOOL, .help = "conversations in, rendered by the chat template: {\"text\":…, \"ids\":[…]} out"},
    CHAT_OPTIONS,
    {0}};
// clang-format on

static void put_ids(struct buf *out, const struct ids *ids)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < ids->n; i++) {
        char digits[16];
        size_t n = sizeof digits;
        for (uint32_t v = (uint32_t)ids->v[i]; n == sizeof digits || v; v /= 10) digits[--n] = (char)('0' + v % 10);
        if (i) buf_putc(out, ',');
        buf_put(out, digits + n, sizeof digits - n);
    }
    buf_putc(out, ']');
}

static enum status encode(const struct tokenizer *t, const json_t *line, bool special, struct buf *out, struct err *err)
{
    struct ids ids = {0}, full = {0};
    if (!json_is_string(line)) return err_set(err, ST_BAD_INPUT, "wanted a JSON string, as in \"some text\"");
    enum status st = tokenizer_encode(t, json_string_value(line), json_string_length(line), &ids, err);
    if (!st && special) tokenizer_add_special(t, ids.v, ids.n, &full);
    if (!st) put_ids(out, special ? &full : &ids), buf_putc(out, '\n');
    ids_free(&ids);
    ids_free(&full);
    return st;
}

static enum status decode(const struct tokenizer *t, const json_t *line, struct buf *out, struct err *err)
{
    struct buf text = {0};
    struct ids ids = {0};
    enum status st = ST_OK;
    if (!json_is_array(line)) return err_set(err, ST_BAD_INPUT, "wanted a JSON array of token ids, as in [1, 2, 3]");
    for (size_t i = 0; i < json_array_size(line) && !st; i++) {
        const json_t *id = json_array_get(line, i);
        const json_int_t n = json_integer_value(id);
        if (!json_is_integer(id) || n < 0 || n > INT32_MAX)
            st = err_set(err, ST_BAD_INPUT, "item %zu is no token id", i);
        else
            ids_push(&ids, (int32_t)n);
    }
    if (!st) st = tokenizer_decode(t, ids.v, ids.n, false, &text, err);
    if (!st) {
        json_t *string = utf8_json(text.data ? text.data : "", text.size);
        json_append_line(out, string);
        json_decref(string);
    }
    buf_free(&text);
    ids_free(&ids);
    return st;
}

static enum status render(const struct chat *c, const json_t *line, struct buf *out, struct err *err)
{
    struct buf text = {0};
    struct ids ids = {0};
    if (!json_is_object(line))
        return err_set(err, ST_BAD_INPUT, "wanted an object, as in {\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}");
    enum status st = chat_render(c, line, &text, &ids, err);
    if (!st) {
        json_t *object = json_object();
        json_object_set_new(object, "text", utf8_json(text.data ? text.data : "", text.size));
        json_append_line(out, object);
        json_decref(object);
        out->size -= 2; // the brace and the newline
        buf_puts(out, ",\"ids\":");
        put_ids(out, &ids);
        buf_puts(out, "}\n");
    }
    buf_free(&text);
    ids_free(&ids);
    return st;
}

static enum status run_lines(const struct tokenizer *t, const struct chat *chat, bool reverse, bool special, struct err *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    long number = 0;
    enum status st = ST_OK;
    struct buf text = {0};
    while (!st && (n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = NULL;
        struct err why = {0};
        number++;
        if (strspn(line, " \t\r\n") == (size_t)n) {
            st = err_set(err, ST_BAD_INPUT, "standard input:%ld:1: an empty line; an empty text is \"\"", number);
            break;
        }
        if ((st = json_parse(&in, line, (size_t)n, "standard input", number, err))) break;
        buf_clear(&text);
        st = chat ? render(chat, in, &text, &why) : reverse ? decode(t, in, &text, &why) : encode(t, in, special, &text, &why);
        json_decref(in);
        if (st) {
            err_set(err, st, "standard input:%ld: %s", number, why.text);
            break;
        }
        if (fwrite(text.data, 1, text.size, stdout) != text.size) st = err_errno(err, "write to", "standard output");
    }
    if (!st && ferror(stdin)) st = err_errno(err, "read from", "standard input");
    if (fflush(stdout) && !st) st = err_errno(err, "write to", "standard output");
    free(line);
    buf_free(&text);
    return st;
}

static enum status run(struct options *o, struct err *err)
{
    struct tokenizer *t = NULL;
    struct chat *chat = NULL;
    if (opt_bool(o, "decode") + opt_bool(o, "chat") + opt_bool(o, "special") > 1)
        return err_set(err, ST_BAD_INPUT, "--decode, --chat and --special exclude each other");
    if (opt_str(o, "template-vars") && !opt_bool(o, "chat")) return err_set(err, ST_BAD_INPUT, "--template-vars: only with --chat");
    TRY(tokenizer_load(&t, opt_str(o, "model"), err));
    enum status st = opt_bool(o, "chat") ? chat_open(&chat, t, err) : ST_OK;
    if (!st && chat) st = chat_options(chat, o, err);
    if (!st) st = run_lines(t, chat, opt_bool(o, "decode"), opt_bool(o, "special"), err);
    chat_free(chat);
    tokenizer_free(t);
    return st;
}

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back, with a model's tokenizer",
    .notes = "Reads standard input, a JSON string a line, and writes a JSON array of ids for each. Special tokens\n"
             "in the text are recognised; none is added unless --special. After --decode, bytes that are no UTF-8\n"
             "become U+FFFD.\n"
             "\n"
             "  echo '\"Hello there\"' | distill tokenize --model DIR\n"
             "  echo '[9906, 1070]' | distill tokenize --model DIR --decode\n"
             "  echo '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"add_generation_prompt\":true}' |\n"
             "      distill tokenize --model DIR --chat\n",
    .options = options,
    .run = run,
};
