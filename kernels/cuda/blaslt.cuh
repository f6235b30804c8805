#pragma once
static inline void blaslt_close(struct blaslt *b)
{
    (void)b;
}
