// Checks of licences: named or not, and what is known of their terms. Facts, no advice.
#include "distill/doctor.h"
#include "distill/licence.h"

#include <string.h>

static const char *id_of(const struct side *s)
{
    return json_string_value(json_object_get(s->licence, "id"));
}

void check_licence(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    if (!s->licence) {
        if (s->is_gguf) {
            say(f, V_WARN, "none is named: no key general.license");
            fix(f, "look where the file came from: the student's card can name only what the file does");
            return;
        }
        say(f, V_WARN, "none is named: no license in README.md's front matter, no LICENSE that is known, none in config.json");
        fix(f, "fetch README.md and LICENSE of the model: the student's card names them");
        return;
    }
    say(f, V_OK, "%s (%s)", id_of(s), json_string_value(json_object_get(s->licence, "from")));
    bool look;
    const char *terms = licence_terms(id_of(s), &look);
    if (terms)
        say(f, V_OK, "its text %s", terms);
    else {
        say(f, V_WARN, "not one whose terms are known here");
        fix(f, "read what it says of derivatives and of training on output");
    }
    if (terms && look && s == &x->teacher) {
        f->verdict = V_WARN;
        fix(f, "read the licence before the student is passed on (this is no legal advice)");
    }
}

void check_licences(struct exam *x, struct finding *f)
{
    const char *t = id_of(&x->teacher), *s = id_of(&x->student);
    if (!t && !s) {
        say(f, V_SKIP, "neither model names a licence");
        return;
    }
    say(f, t && s ? V_OK : V_WARN, "the student's card will name %s for the student and %s for the teacher", s ? s : "nothing",
        t ? t : "nothing");
    if (!t || !s) fix(f, "put README.md or LICENSE into the %s's folder before gen and train", t ? "student" : "teacher");
    bool old = t && (!strcmp(t, "llama2") || !strcmp(t, "llama3"));
    if (old && x->student.config && strcmp(x->student.shape.model_type, "llama") != 0) {
        say(f, V_WARN, "%s does not allow its output to improve a model of another family", t);
        fix(f, "take a Llama student, or a teacher under another licence");
    }
}
