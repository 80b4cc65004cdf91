/* What arm.c and riscv.c give to replay.c. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* From link.ld: what is cleared at the start, and the ends of the stack. */
extern uint32_t board_bss_begin[], board_bss_end[], board_stack_lowest[], board_stack_top[];

int main(void);
void board_start(void) __attribute__((noreturn));

/* The value of the instructions' counter, which runs upwards and begins again after BOARD_COUNTER_MASK. */
uint32_t board_counter(void);

/* Takes exactly 2 `rounds` + 1 instructions. */
void board_loop(uint32_t rounds);

/* Asks the emulator for one of its operations. */
void board_semihost(uint32_t operation, uint32_t argument);

/* Writes a text to the emulator's terminal. */
static inline void board_write(const char *text)
{
    board_semihost(UINT32_C(0x04), (uint32_t)(uintptr_t)text); /* SYS_WRITE0 */
}

/* Ends the emulator with a status: SYS_EXIT with ADP_Stopped_ApplicationExit or ADP_Stopped_RunTimeErrorUnknown. */
static inline __attribute__((noreturn)) void board_exit(int status)
{
    for (;;) {
        board_semihost(UINT32_C(0x18), status == 0 ? UINT32_C(0x20026) : UINT32_C(0x20023));
    }
}

#ifdef __arm__
#define BOARD_COUNTER_MASK UINT32_C(0x00ffffff)
#define BOARD_STACK_POINTER(pointer) __asm__ volatile("mov %0, sp" : "=r"(pointer))
#else
#define BOARD_COUNTER_MASK UINT32_C(0xffffffff)
#define BOARD_STACK_POINTER(pointer) __asm__ volatile("mv %0, sp" : "=r"(pointer))
#endif

#endif
