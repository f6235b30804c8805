# What is no JSON is refused with its place and exit code 2, and what is JSON is read, through the program's own entries: standard input of
# tokenize in its three forms, and --config. (Files that the libraries read: the suite json_entries.)
. tests/cli/lib.inc
mkdir "$TMP/m"
cp tests/golden/text/byte_tokenizer.json "$TMP/m/tokenizer.json"
printf '{"chat_template":"{%% for m in messages %%}{{ m.role }}: {{ m.content }}{%% endfor %%}"}' >"$TMP/m/tokenizer_config.json"

# through NAME FILE: the four entries, FILE their input.
entries="text decode chat config"
through() {
    case $1 in
    text) "$DISTILL" tokenize --model "$TMP/m" <"$2" ;;
    decode) "$DISTILL" tokenize --model "$TMP/m" --decode <"$2" ;;
    chat) "$DISTILL" tokenize --model "$TMP/m" --chat <"$2" ;;
    config) "$DISTILL" eval --model "$TMP/m" --tasks none.jsonl --config "$2" ;;
    esac >"$TMP/out" 2>"$TMP/err"
}
# refused FILE: every entry must refuse it, exit code 2, with the place where it stops being JSON. refused_by says which does not.
refused() {
    refused_by=
    for entry in $entries; do
        through "$entry" "$1"
        [ $? = 2 ] || refused_by="$refused_by $entry:exit-code"
        place='standard input:[0-9]*:[0-9]*: '
        [ "$entry" != config ] || place=$(basename "$1")':[0-9]*:[0-9]*: '
        grep -q "$place" "$TMP/err" || refused_by="$refused_by $entry:place"
    done
    [ -z "$refused_by" ]
}
# read_as_json FILE: an entry may want another value, but must not call it malformed.
read_as_json() {
    refused_by=
    for entry in $entries; do
        through "$entry" "$1"
        code=$?
        [ $code = 0 ] || [ $code = 2 ] || refused_by="$refused_by $entry:exit-code-$code"
        ! grep -q "not valid JSON" "$TMP/err" || refused_by="$refused_by $entry"
    done
    [ -z "$refused_by" ]
}

n=0
for text in '[1,]' '{"a":1,}' 'nul' '[1] x' '["a' '[+1]' '[01]' '["\x"]' '["\ud800"]' '["\ud83c\ud83c"]' '[NaN]' '{}}' "{'a':1}" "$(printf '"a\001b"')" "$(printf '"\377"')"; do
    n=$((n + 1))
    printf '%s\n' "$text" >"$TMP/no$n.json"
    refused "$TMP/no$n.json" && ok "refused: $text" || failed "refused: $text: not by$refused_by"
done
printf '"a"\n"b\\ud800"\n' >"$TMP/second.json"
through text "$TMP/second.json"
says "a surrogate without its pair: the line" err "standard input:2:"
printf '"a\\u0000b"\n' >"$TMP/nul.json"
exits 0 "U+0000 in a string is text" through text "$TMP/nul.json"
printf '{"messages":[{"role":"user","content":"hi"}],"x\\u0000":1,"n":1000000000000000019884624838656,"n":2}\n' >"$TMP/odd.json"
exits 0 "JSON that is odd is JSON" through chat "$TMP/odd.json"
printf '{"seed": 1,\n "seed": 2}' >"$TMP/twice.json"
through config "$TMP/twice.json"
says "--config: a key that stands twice" err "twice.json:2:7: a key stands twice"
printf '["\033]0;evil\007"]' >"$TMP/escape.json"
through text "$TMP/escape.json"
if grep -q "$(printf '[\033\007]')" "$TMP/err"; then failed "a message drives the terminal"; else ok "a message never drives the terminal"; fi

suite=${DISTILL_MATERIAL:-../shared/material}/json-test-suite/test_parsing
if [ -d "$suite" ]; then
    n_no=0
    n_yes=0
    for f in "$suite"/n_*.json; do
        # A blank line is no line of input to tokenize, and an empty one has no JSON to be refused.
        case $f in *n_structure_no_data.json) continue ;; esac
        n_no=$((n_no + 1))
        refused "$f" || failed "$(basename "$f"): not refused by$refused_by"
    done
    for f in "$suite"/y_*.json; do
        # Standard input is read by lines: a value of several lines is several.
        [ "$(head -n 1 "$f")" = "$(cat "$f")" ] || continue
        n_yes=$((n_yes + 1))
        read_as_json "$f" || failed "$(basename "$f"): not read by$refused_by"
    done
    ok "nst/JSONTestSuite: $n_no cases that are no JSON, $n_yes that are, through $entries"
else
    echo "skipped: nst/JSONTestSuite (no $suite)"
fi
finish
