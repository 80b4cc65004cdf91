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

/* Writes a text to the emulator's terminal; ends the emulator with a status. */
void board_write(const char *text);
void board_exit(int status) __attribute__((noreturn));

#ifdef __arm__
#define BOARD_COUNTER_MASK UINT32_C(0x00ffffff)
#define BOARD_STACK_POINTER(pointer) __asm__ volatile("mov %0, sp" : "=r"(pointer))
#else
#define BOARD_COUNTER_MASK UINT32_C(0xffffffff)
#define BOARD_STACK_POINTER(pointer) __asm__ volatile("mv %0, sp" : "=r"(pointer))
#endif

#endif
