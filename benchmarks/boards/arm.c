/* Start, semihosting and counter of Cortex-M: SysTick counts down 24 bits of emulated time. */
#include "board.h"

#define CPACR (*(volatile uint32_t *)UINT32_C(0xe000ed88))
#define SYSTICK_CONTROL (*(volatile uint32_t *)UINT32_C(0xe000e010))
#define SYSTICK_RELOAD (*(volatile uint32_t *)UINT32_C(0xe000e014))
#define SYSTICK_VALUE (*(volatile uint32_t *)UINT32_C(0xe000e018))

void board_semihost(uint32_t operation, uint32_t argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register uint32_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

uint32_t board_counter(void)
{
    return BOARD_COUNTER_MASK - SYSTICK_VALUE;
}

__attribute__((naked)) void board_loop(__attribute__((unused)) uint32_t rounds)
{
    __asm__ volatile(".syntax unified\n1: subs r0, #1\n bne 1b\n bx lr");
}

void board_start(void)
{
    volatile uint32_t *word;

    for (word = board_bss_begin; word < board_bss_end; word++) {
        *word = 0;
    }
#ifdef __ARM_FP
    CPACR |= UINT32_C(0xf) << 20;
    __asm__ volatile("dsb\n isb");
#endif
    SYSTICK_RELOAD = BOARD_COUNTER_MASK;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5; /* the processor's clock, no interrupt */
    board_exit(main());
}

static void board_fault(void)
{
    board_write("fault\n");
    board_exit(1);
}

union vector {
    uint32_t *stack;
    void (*handler)(void);
};

__attribute__((section(".boot"), used)) static const union vector vectors[16] = {
    {.stack = board_stack_top},
    {.handler = board_start},
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault},
};
