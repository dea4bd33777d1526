/* Timer 0 of the board counts down from here, 25 times a microsecond. */
#define TIMER ((volatile uint32_t *)(uintptr_t)0x40000000)

static void start_ticks(void)
{
    TIMER[2] = UINT32_MAX;
    TIMER[1] = UINT32_MAX;
    TIMER[0] = 1u;
}

static uint32_t ticks(void)
{
    return UINT32_MAX - TIMER[1];
}
