// The one flag of the program that is global: a signal handler can reach nothing else.
#include "distill/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop, on_terminal;

static void handle(int sig)
{
    static const char note[] = "\nstopping after the step in hand; once more: stop at once\n";
    if (stop) {
        signal(sig, SIG_DFL);
        raise(sig); // taken when this handler returns
        return;
    }
    stop = 1;
    if (on_terminal && write(STDERR_FILENO, note, sizeof note - 1) < 0) return;
}

void signals_install(bool saves_on_stop)
{
    struct sigaction action;
    signal(SIGXFSZ, SIG_IGN); // a file at its size limit is then a write that fails, and says so
    if (!saves_on_stop) return;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    on_terminal = isatty(STDERR_FILENO);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool stop_requested(void)
{
    return stop;
}
