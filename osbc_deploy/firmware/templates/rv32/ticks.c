static void start_ticks(void)
{
}

/* Instructions since the start. */
static uint32_t ticks(void)
{
    uint32_t count;
    __asm__ volatile("csrr %0, minstret" : "=r"(count));
    return count;
}
