// Runs kernels on another machine: reads cases, executes each, writes the operands back.
//
// A case: six little-endian int64 (code bytes, operands, scratch bytes, begin, end, 0), the code, then each operand as an
// int64 length and its bytes. Output: the operands' bytes in order. Every buffer ends at a page that may not be touched.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void (*kernel)(unsigned char **args, unsigned char *scratch, int64_t begin, int64_t end);

static long page;

// `len` bytes that end where a protected page begins; `base` and `size` are what to unmap.
static unsigned char *guarded(int64_t len, unsigned char **base, size_t *size) {
    size_t pages = (len + page - 1) / page * page;
    *size = pages + page;
    *base = mmap(0, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*base == MAP_FAILED || mprotect(*base + pages, page, PROT_NONE)) exit(3);
    return *base + pages - len;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    if (!in || !out) return 2;
    page = sysconf(_SC_PAGESIZE);
    int64_t head[6];
    while (fread(head, 8, 6, in) == 6) {
        unsigned char *base[64], *args[64];
        size_t size[64];
        int64_t length[64], n = head[1];
        if (n > 62) return 2;
        unsigned char *code = mmap(0, head[0], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code == MAP_FAILED || fread(code, 1, head[0], in) != (size_t)head[0]) return 3;
        if (mprotect(code, head[0], PROT_READ | PROT_EXEC)) return 3;
        __builtin___clear_cache((char *)code, (char *)code + head[0]);
        for (int i = 0; i < n; i++) {
            if (fread(&length[i], 8, 1, in) != 1) return 3;
            args[i] = guarded(length[i], &base[i], &size[i]);
            if (fread(args[i], 1, length[i], in) != (size_t)length[i]) return 3;
        }
        unsigned char *scratch = guarded(head[2], &base[n], &size[n]);
        memset(scratch, 0xff, head[2]);
        ((kernel)(void *)code)(args, scratch, head[3], head[4]);
        for (int i = 0; i < n; i++) fwrite(args[i], 1, length[i], out);
        for (int i = 0; i <= n; i++) munmap(base[i], size[i]);
        munmap(code, head[0]);
    }
    return fclose(out) ? 3 : 0;
}
