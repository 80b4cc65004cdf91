/* Start, semihosting and counter of RV32: minstret counts instructions. */
#include "board.h"

void board_semihost(uint32_t operation, uint32_t argument)
{
    register uint32_t a0 __asm__("a0") = operation;
    register uint32_t a1 __asm__("a1") = argument;
    /* These three instructions, uncompressed and within a page, are the call. */
    __asm__ volatile(".option push\n .option norvc\n .balign 16\n"
                     "slli zero, zero, 0x1f\n ebreak\n srai zero, zero, 7\n .option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
}

uint32_t board_counter(void)
{
    uint32_t count;
    __asm__ volatile(".option push\n .option arch, +zicsr\n csrr %0, minstret\n .option pop" : "=r"(count));
    return count;
}

__attribute__((naked)) void board_loop(__attribute__((unused)) uint32_t rounds)
{
    __asm__ volatile("1: addi a0, a0, -1\n bnez a0, 1b\n ret");
}

static void __attribute__((aligned(4), used)) board_fault(void)
{
    board_write("fault\n");
    board_exit(1);
}

static void __attribute__((used)) board_prepare(void)
{
    volatile uint32_t *word;

    for (word = board_bss_begin; word < board_bss_end; word++) {
        *word = 0;
    }
    board_exit(main());
}

/* mstatus.FS = 1 switches the FPU on; without one the bits stay 0. */
__attribute__((section(".boot"), naked)) void board_start(void)
{
    __asm__ volatile(".option push\n .option arch, +zicsr\n"
                     "la sp, board_stack_top\n la t0, board_fault\n csrw mtvec, t0\n"
                     "li t0, 0x2000\n csrs mstatus, t0\n .option pop\n"
                     "j board_prepare");
}
