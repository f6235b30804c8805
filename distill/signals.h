// Ctrl-C and SIGTERM: the first asks the job to finish the sample or step in hand and save, or, if it has nothing to resume, to take away
// the file it began; the second ends the process at once.
#pragma once
#include <stdbool.h>

void signals_install(bool saves_on_stop); // false: they end the process as ever; a file at its size limit is an error in any case
bool stop_requested(void);                // jobs ask once a step; they then save and return ST_INTERRUPTED with how to go on as the message
