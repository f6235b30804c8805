# What the program says to a user who asks or errs: help, version, wrong commands and flags, exit codes, completion.
. tests/cli/lib.inc

exits 0 "--version" "$DISTILL" --version
says "--version prints name and number" out "distill "
exits 0 "--help" "$DISTILL" --help
silent "--help talks on stdout only" err
exits 2 "no command is bad usage" "$DISTILL"
silent "bad usage leaves stdout alone" out
says "no command shows the help" err "Usage: distill"
exits 2 "unknown command" "$DISTILL" completoin
says "unknown command: nearest name" err "unknown command completoin; did you mean completion?"
exits 2 "unknown option before the command" "$DISTILL" --teacher
exits 1 "a full disk behind stdout is a failure" sh -c '"$0" --help > /dev/full' "$DISTILL"
says "a full disk behind stdout is named" err "disk full"
if bash --version >/dev/null 2>&1; then
    exits 0 "completion is bash" bash -c "source <($DISTILL completion bash) && complete -p distill"
fi
exits 2 "completion for an unknown shell" "$DISTILL" completion tcsh

# Every command there is: its help fits 100 columns, a wrong flag is refused with a hint.
for cmd in $("$DISTILL" --help | sed -n '/^Commands/,/^$/s/^  \([a-z][a-z]*\).*/\1/p' | sort -u); do
    case $cmd in help | completion | data) continue ;; esac
    exits 0 "$cmd --help" "$DISTILL" "$cmd" --help
    if [ "$(LC_ALL=C.UTF-8 wc -L <"$TMP/out")" -le 100 ]; then ok "$cmd --help fits"; else failed "$cmd --help is too wide"; fi
    cp "$TMP/out" "$TMP/help"
    exits 0 "help $cmd" "$DISTILL" help "$cmd"
    same "help $cmd is $cmd --help" "$TMP/out" "$TMP/help"
    exits 0 "$cmd --version" "$DISTILL" "$cmd" --version
    exits 2 "$cmd --sede" "$DISTILL" "$cmd" --sede 1
    says "$cmd --sede: nearest name" err "distill $cmd: unknown option --sede; did you mean --seed?"
    exits 2 "$cmd --threads x" "$DISTILL" "$cmd" --threads x
    says "$cmd --threads x: what was wanted" err "distill $cmd: --threads x: wanted an integer"
    exits 2 "$cmd --config missing file" "$DISTILL" "$cmd" --config "$TMP/none.json"
    says "$cmd --config missing file: named" err "$TMP/none.json"
    printf '{"seed": 1,\n "sede": 2}' >"$TMP/c.json"
    exits 2 "$cmd --config with a wrong key" "$DISTILL" "$cmd" --config "$TMP/c.json"
    says "$cmd --config with a wrong key: nearest name" err 'unknown key "sede"; did you mean seed?'
done
finish
