static void start_ticks(void)
{
}

/* Instructions since the start: QEMU counts 64 ns for each, of which 32 bits would not hold many. */
static uint32_t ticks(void)
{
    uint32_t low, high, again;
    do {
        __asm__ volatile("csrr %0, minstreth" : "=r"(high));
        __asm__ volatile("csrr %0, minstret" : "=r"(low));
        __asm__ volatile("csrr %0, minstreth" : "=r"(again));
    } while (high != again);
    return (high << 26) | (low >> 6);
}
