// Post-processors: what stands around the ids of one text when special tokens are asked for. ByteLevel trims offsets, which distill does
// not have; TemplateProcessing adds ids. The template for pairs of texts is never used.
#include "datasets/tokenizer/internal.h"

#include <string.h>

static enum status load_template(struct ids *out, const json_t *spec, const char *where, struct err *err)
{
    const json_t *single = json_object_get(spec, "single"), *tokens = json_object_get(spec, "special_tokens"), *piece, *id;
    size_t i, k;
    if (!json_is_array(single)) return err_set(err, ST_BAD_INPUT, "%s: post_processor TemplateProcessing: no array \"single\"", where);
    if (out->n) return err_set(err, ST_BAD_INPUT, "%s: post_processor: more than one TemplateProcessing", where);
    json_array_foreach(single, i, piece)
    {
        const char *sequence = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        const char *special = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
        if (sequence && strcmp(sequence, "A") == 0) {
            ids_push(out, -1);
            continue;
        }
        if (!special)
            return err_set(err, ST_BAD_INPUT,
                           "%s: post_processor TemplateProcessing: single[%zu] is neither the Sequence A nor a SpecialToken", where, i);
        const json_t *list = json_object_get(json_object_get(tokens, special), "ids");
        if (!json_is_array(list))
            return err_set(err, ST_BAD_INPUT, "%s: post_processor TemplateProcessing: special_tokens has no ids for \"%s\"", where,
                           special);
        json_array_foreach(list, k, id)
        {
            if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
                return err_set(err, ST_BAD_INPUT, "%s: post_processor TemplateProcessing: ids of \"%s\": wanted token ids", where, special);
            ids_push(out, (int32_t)json_integer_value(id));
        }
    }
    return ST_OK;
}

enum status processor_load(struct ids *out, const json_t *spec, const char *where, struct err *err)
{
    json_t *list, *one;
    size_t i;
    enum status st = part_list(&list, spec, "post_processor", "processors", where, err);
    json_array_foreach(list, i, one)
    {
        if (st) break;
        if (strcmp(part_type(one), "TemplateProcessing") == 0)
            st = load_template(out, one, where, err);
        else if (strcmp(part_type(one), "ByteLevel") != 0)
            st = err_set(err, ST_BAD_INPUT, "%s: post_processor %s is not known; distill knows TemplateProcessing, ByteLevel, Sequence",
                         where, part_type(one));
    }
    json_decref(list);
    return st;
}
