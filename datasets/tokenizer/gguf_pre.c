// What the names of llama.cpp's pre-tokenizers stand for. Expressions: of the tokenizer.json that each name was made for; llama.cpp's own
// text differs where its regex engine lacks (?i:…).
#include "datasets/tokenizer/gguf.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define WORDS(DIGITS) CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGITS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// clang-format off
#define LLAMA3 .ignore_merges = true, .split = {WORDS("\\p{N}{1,3}")}
#define QWEN2 .nfc = true, .split = {WORDS("\\p{N}")}
const struct gguf_pre gguf_pres[] = {
    {"llama-bpe", LLAMA3},
    {"llama3", LLAMA3},
    {"llama-v3", LLAMA3},
    {"qwen2", QWEN2},
    {"deepseek-r1-qwen", QWEN2},
    {"deepseek-v3", .split = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"}},
    {"gpt-2", .gpt2_regex = true},
    {"default", .split = {"[\\p{P}\\$\\+<=>\\^~\\|]+", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+", "[0-9][0-9][0-9]"}},
    {0},
};
// clang-format on

json_t *gguf_pre_normalizer(const struct gguf_pre *p)
{
    return p->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
}

json_t *gguf_pre_tokenizer(const struct gguf_pre *p)
{
    json_t *steps = json_array();
    for (int i = 0; i < 4 && p->split[i]; i++)
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", p->split[i], "behavior",
                                               "Isolated", "invert", 0));
    json_array_append_new(steps, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0,
                                           "use_regex", p->gpt2_regex));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}
