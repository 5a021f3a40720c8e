/* The start of a program without libc: calls `check`, which the including file defines before, and ends with its result. */
static void leave(int code) {
#if defined(__x86_64__)
    __asm__ volatile("syscall" : : "a"(60L), "D"((long)code) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = 93, x0 __asm__("x0") = code;
    __asm__ volatile("svc 0" : : "r"(x8), "r"(x0) : "memory");
#endif
}

void begin(void) {
    leave(check());
    for (;;)
        ;
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: and $-16, %rsp\n call begin\n");
#else
__asm__(".globl _start\n_start: bl begin\n");
#endif
