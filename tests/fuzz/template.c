// A chat template: parsed, and rendered over conversations that real templates meet, and over none.
#include "datasets/template/internal.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const char *const CONVERSATIONS[] = {
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi <b>\\\"you\\\"</b>\"}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\","
    "\"eos_token\":\"</s>\",\"tools\":null}",
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\\n\"},{\"role\":\"user\",\"content\":\"1+1?\"},{\"role\":\"assistant\","
    "\"content\":\"<think>\\nsum\\n</think>\\n\\n2\",\"reasoning_content\":\"sum\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
    "\"text\":\"\\u00e9\\u20ac\\ud83c\\udf4e\"}]}],\"add_generation_prompt\":false,\"enable_thinking\":false,\"tools\":[]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":"
    "\"function\",\"id\":\"1\",\"function\":{\"name\":\"w\",\"arguments\":{\"city\":\"Z\\u00fcrich\",\"n\":-2,\"x\":[0.5,true,null]}}}]},"
    "{\"role\":\"tool\",\"name\":\"w\",\"content\":\"{}\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"w\",\"parameters\":"
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}],\"add_generation_prompt\":true}",
    "{}",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { N = sizeof CONVERSATIONS / sizeof *CONVERSATIONS };
    static json_t *vars[N];
    struct template *t;
    struct err err = {0};
    for (int i = 0; i < N && !vars[i]; i++)
        FUZZ_CHECK(!json_parse(&vars[i], CONVERSATIONS[i], strlen(CONVERSATIONS[i]), "conversation", 0, &err));
    if (!fuzz_ok(template_parse(&t, (const char *)data, size, &err), &err)) return 0;
    for (int i = 0; i < N; i++) {
        struct buf out = {0}, spans = {0};
        bool ok = fuzz_ok(template_render_spans(t, vars[i], &out, &spans, &err), &err);
        for (size_t at = 0; ok && at + 2 * sizeof(size_t) <= spans.size; at += 2 * sizeof(size_t)) {
            size_t span[2];
            memcpy(span, spans.data + at, sizeof span);
            FUZZ_CHECK(span[0] <= span[1] && span[1] <= out.size);
        }
        buf_free(&out);
        buf_free(&spans);
    }
    template_free(t);
    return 0;
}
