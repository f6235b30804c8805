# distill tokenize: lines in, lines out, and what is no such line named with its number.
. tests/cli/lib.inc
model=teacher/tiny/moe
# lines NAME CODE TEXT [OPTION …]: TEXT by printf through the command.
lines() {
    name=$1
    want=$2
    printf "$3" >"$TMP/in"
    shift 3
    exits "$want" "$name" sh -c 'in=$1; shift; exec "$@" <"$in"' sh "$TMP/in" "$DISTILL" tokenize --model $model "$@"
}

lines "texts to ids" 0 '"Hi <|im_end|>"\n""\n"a\\u0000b"\n"\\ud83e\\udee8"'
cp "$TMP/out" "$TMP/ids"
[ "$(wc -l <"$TMP/ids")" = 4 ] && ok "an array a line" || failed "an array a line"
exits 0 "ids to texts" sh -c '"$1" tokenize --model "$2" --decode <"$3"' sh "$DISTILL" $model "$TMP/ids"
printf '"Hi <|im_end|>"\n""\n"a\\u0000b"\n"\360\237\253\250"\n' >"$TMP/texts"
same "ids to texts: the same texts" "$TMP/out" "$TMP/texts"
lines "lines may end with CR LF" 0 '"a"\r\n"b"\r\n'
lines "nothing in, nothing out" 0 ''
silent "nothing in, nothing out" out
lines "a conversation" 0 '{"messages":[{"role":"user","content":"Hi"}],"add_generation_prompt":true}\n' --chat
says "a conversation: text and ids" out '<|im_start|>assistant\n","ids":['
lines "--special without a post-processor that adds" 0 '"a"\n' --special

# Several templates by name, as transformers chooses among them: tool_use where the request has tools.
mkdir "$TMP/named" && cp $model/tokenizer.json "$TMP/named"
printf '{"chat_template":[{"name":"default","template":"plain"},{"name":"tool_use","template":"with {{ tools | length }} tools"}]}' >"$TMP/named/tokenizer_config.json"
model=$TMP/named
lines "named templates" 0 '{"messages":[{"role":"user","content":"Hi"}]}\n{"messages":[],"tools":[{"type":"function"}]}\n{"messages":[],"tools":null}\n' --chat
says "named templates: the default one" out '{"text":"plain",'
says "named templates: the one for tools" out '{"text":"with 1 tools",'
[ "$(grep -c plain "$TMP/out")" = 2 ] && ok "named templates: no tools are none" || failed "named templates: no tools are none"
model=teacher/tiny/moe

lines "an unpaired surrogate" 2 '"a"\n"b\\ud800"\n'
says "an unpaired surrogate: the line" err "standard input:2:"
lines "an unpaired low surrogate" 2 '"a"\n"b"\n"\\udc00x"\n'
says "an unpaired low surrogate: the line" err "standard input:3:"
lines "an unpaired surrogate in a conversation" 2 '{"messages":[{"role":"user","content":"\\ud800"}]}\n' --chat
says "an unpaired surrogate in a conversation: the line" err "standard input:1:"
lines "bytes that are no UTF-8" 2 '"a"\n"\377"\n'
says "bytes that are no UTF-8: the line" err "standard input:2:"
lines "an empty line" 2 '"a"\n\n"b"\n'
says "an empty line: the line" err "standard input:2:1: an empty line"
lines "a NUL byte" 2 '"a"\n"b\000"\n'
says "a NUL byte: the line" err "standard input:2:"
says "a NUL byte: what it is" err "not valid JSON: a NUL byte"
lines "no string" 2 '12\n'
says "no string: what is wanted" err "wanted a JSON string"
lines "an id outside the vocabulary" 2 '[1]\n[512]\n' --decode
says "an id outside the vocabulary: line and id" err "standard input:2: id 512"
lines "no id" 2 '[1,"a"]\n' --decode
says "no id: which" err "item 1 is no token id"
lines "--decode and --chat" 2 '' --decode --chat
says "--decode and --chat: named" err "exclude each other"

mkdir -p "$TMP/broken"
sed 's/"<|im_end|>"/"<|im_end|>\\ud800"/' $model/tokenizer.json >"$TMP/broken/tokenizer.json"
exits 2 "an unpaired surrogate in tokenizer.json" "$DISTILL" tokenize --model "$TMP/broken" </dev/null
says "an unpaired surrogate in tokenizer.json: file and line" err "broken/tokenizer.json:$(grep -n ud800 "$TMP/broken/tokenizer.json" | head -1 | cut -d: -f1):"
exits 1 "a full disk behind stdout" sh -c 'echo "\"a\"" | "$1" tokenize --model "$2" >/dev/full' sh "$DISTILL" $model
says "a full disk behind stdout: named" err "disk full"
# A reader that goes away ends the command at once, and not with a crash.
yes '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"' | head -100000 | "$DISTILL" tokenize --model $model 2>"$TMP/err" | head -1 >"$TMP/out"
says "a reader that goes away got its line" out "64,64"
silent "a reader that goes away is no error worth a word" err
head -c 3000000 /dev/zero | tr '\0' x | sed 's/.*/"&"/' >"$TMP/in"
exits 0 "a line of three megabytes" sh -c '"$1" tokenize --model "$2" <"$3"' sh "$DISTILL" $model "$TMP/in"
finish
