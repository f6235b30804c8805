// distill: the command line.
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--version")) return puts("distill 0.1.0") < 0;
    fputs("distill: no commands yet\n", stderr);
    return 2;
}
