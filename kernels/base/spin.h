// How long threads spin at a barrier before they sleep.
#pragma once

// libgomp's default is milliseconds, which on a shared machine takes the processor from the very thread that is waited for: at load 10 it
// cost nine tenths of the speed. It reads its setting before main, so this sets GOMP_SPINCOUNT, unless the user did or chose
// OMP_WAIT_POLICY, and begins the program again; call it first in main. Returns when there is nothing to do, or when that fails.
void spin_briefly(char **argv);
