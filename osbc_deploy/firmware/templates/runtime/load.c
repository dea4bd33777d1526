/* Whether a blob is one, whole and without a table that leads astray; see @P@_load. */
#include "@P@_layout.h"

/* What is known of a blob while it is looked through. */
typedef struct {
    const uint8_t *blob;
    uint32_t length, inputs, cycle, populations, projections, words;
    int32_t limit;
} scene;

/* Whether `count` things of `bytes` bytes lie in the blob, behind the header. */
static int inside(const scene *s, uint32_t at, uint64_t count, uint32_t bytes)
{
    return at >= @U@_HEADER_BYTES && at <= s->length && count <= (s->length - at) / bytes;
}

/* Whether a table has `count` numbers, and each lies between two others. */
static int holds(const scene *s, const uint8_t *record, uint32_t count, int64_t low, int64_t high)
{
    @P@_table table = @P@_table_at(s->blob, record);
    uint32_t i;
    if (table.width == 0u) {
        int64_t value = @P@_signed(table.value);
        return low <= value && value <= high;
    }
    if ((table.width != 1u && table.width != 2u && table.width != 4u) || table.repeat == 0u ||
        count % table.repeat != 0u ||
        !inside(s, table.value, count / table.repeat, table.width)) {
        return 0;
    }
    for (i = 0; i < count; i += table.repeat) {
        int64_t value = @P@_number(&table, i);
        if (value < low || value > high) {
            return 0;
        }
    }
    return 1;
}

/* Whether a table has `count` unsigned numbers of at most `high`; rising ones, if they must. */
static int leads(const scene *s, const uint8_t *record, uint32_t count, uint32_t high, int rising)
{
    @P@_table table = @P@_table_at(s->blob, record);
    uint32_t i, last = 0;
    if (table.width == 0u) {
        return !rising && table.value <= high;
    }
    if ((table.width != 1u && table.width != 2u && table.width != 4u) || table.repeat != 1u ||
        !inside(s, table.value, count, table.width)) {
        return 0;
    }
    for (i = 0; i < count; i++) {
        uint32_t value = @P@_position(&table, i);
        if (value > high || (rising && value < last)) {
            return 0;
        }
        last = value;
    }
    return 1;
}

static int good_lists(const scene *s, const uint8_t *p, uint32_t before, uint32_t after)
{
    uint32_t synapses = @P@_u32(p + @U@_PROJECTION_SYNAPSES);
    uint32_t latency = @P@_u32(p + @U@_PROJECTION_LATENCY);
    uint32_t ring = @P@_u32(p + @U@_PROJECTION_RING);
    @P@_table start = @P@_table_at(s->blob, p + @U@_PROJECTION_START);
    return leads(s, p + @U@_PROJECTION_START, before + 1u, synapses, 1) &&
           @P@_position(&start, 0u) == 0u && @P@_position(&start, before) == synapses &&
           leads(s, p + @U@_PROJECTION_TARGET, synapses, after - 1u, 0) &&
           leads(s, p + @U@_PROJECTION_DELAY, synapses, ring - 1u - latency, 0);
}

static int good_kernel(const scene *s, const uint8_t *p, uint32_t before, uint32_t after)
{
    uint32_t at = @P@_u32(p + @U@_PROJECTION_GEOMETRY), sizes[15], i;
    uint64_t source = 1, result = 1, codes = 1;
    if (!inside(s, at, 1u, @U@_GEOMETRY_BYTES)) {
        return 0;
    }
    for (i = 0; i < 15u; i++) {
        /* Height, width, rows, columns, c_in, c_out, kh, kw, groups; two strides, paddings and
         * dilations. Only paddings may be 0. */
        sizes[i] = @P@_u32(s->blob + at + 4u * i);
        if (sizes[i] > 0xFFFFu || (sizes[i] == 0u && i != 11u && i != 12u)) {
            return 0;
        }
    }
    source = (uint64_t)sizes[4] * sizes[0] * sizes[1];
    result = (uint64_t)sizes[5] * sizes[2] * sizes[3];
    codes = (uint64_t)sizes[4] * sizes[6] * sizes[7] * (sizes[5] / sizes[8]);
    return source == before && result == after && sizes[4] % sizes[8] == 0u &&
           sizes[5] % sizes[8] == 0u && codes == @P@_u32(p + @U@_PROJECTION_SYNAPSES);
}

/* Whether a projection may add to the state of its population instead of to sums. */
static int good_direct(const scene *s, const uint8_t *p, const uint8_t *q)
{
    uint32_t shift = p[@U@_PROJECTION_SHIFT];
    shift += s->blob[@U@_HEADER_BYTES + @U@_NETWORK_STATE_SHIFT];
    return @P@_u16(q + @U@_POPULATION_COUNT) == 1u && @P@_u32(p + @U@_PROJECTION_RING) == 1u &&
           p[@U@_PROJECTION_RIGHT] == 0u && p[@U@_PROJECTION_WRAPS] == 0u &&
           p[@U@_PROJECTION_GRADED] == 0u && shift <= 31u;
}

static int good_projection(scene *s, const uint8_t *p, uint32_t post)
{
    uint32_t bits = p[@U@_PROJECTION_CODE_BITS], pre = @P@_u16(p + @U@_PROJECTION_PRE);
    uint32_t latency = @P@_u32(p + @U@_PROJECTION_LATENCY);
    uint32_t ring = @P@_u32(p + @U@_PROJECTION_RING);
    uint32_t synapses = @P@_u32(p + @U@_PROJECTION_SYNAPSES), before, after;
    const uint8_t *q = @P@_population(s->blob, post);
    int direct = p[@U@_PROJECTION_DIRECT] != 0u;
    uint32_t sums = direct ? @P@_u32(q + @U@_POPULATION_STATE) : s->words;
    uint64_t words;
    if (@P@_u16(p + @U@_PROJECTION_POST) != post || pre > s->populations ||
        (p[@U@_PROJECTION_GRADED] != 0u && pre != 0u) || (pre > post && latency == 0u) ||
        p[@U@_PROJECTION_SHIFT] > 31u || p[@U@_PROJECTION_RIGHT] > 31u || ring == 0u ||
        s->cycle % ring != 0u || latency >= ring || p[@U@_PROJECTION_DIRECT] > 1u ||
        (bits != 2u && bits != 4u && bits != 8u && bits != 16u) ||
        !inside(s, @P@_u32(p + @U@_PROJECTION_CODES), ((uint64_t)synapses * bits + 7u) / 8u, 1u) ||
        @P@_u32(p + @U@_PROJECTION_SUMS) != sums || (direct && !good_direct(s, p, q))) {
        return 0;
    }
    before = @P@_neurons(s->blob, pre);
    after = @P@_neurons(s->blob, post + 1u);
    words = s->words + (direct ? 0u : (uint64_t)ring * after);
    if (words > (uint64_t)(INT32_MAX / 4)) {
        return 0;
    }
    s->words = (uint32_t)words;
    switch (p[@U@_PROJECTION_KIND]) {
    case @U@_SPARSE:
        return good_lists(s, p, before, after);
    case @U@_DENSE:
        return (uint64_t)before * after == synapses;
    case @U@_CONV:
        return good_kernel(s, p, before, after);
    default:
        return 0;
    }
}

/* Whether what a spike takes away lies between 0 and the threshold's limit, for every neuron. */
static int good_resets(const scene *s, const uint8_t *q, uint32_t size)
{
    @P@_table threshold = @P@_table_at(s->blob, q + @U@_POPULATION_THRESHOLD);
    @P@_table drop = @P@_table_at(s->blob, q + @U@_POPULATION_DROP);
    uint32_t i;
    /* What is the same for all takes no time, however many a blob says there are. */
    size = threshold.width == 0u && drop.width == 0u ? 1u : size;
    for (i = 0; i < size; i++) {
        int64_t taken = (int64_t)@P@_number(&threshold, i) + @P@_number(&drop, i);
        if (taken < 0 || taken >= s->limit) {
            return 0;
        }
    }
    return 1;
}

static int good_registers(const scene *s, const uint8_t *q, uint32_t size)
{
    int64_t unity = (int64_t)1 << s->blob[@U@_HEADER_BYTES + @U@_NETWORK_DECAY_BITS];
    int64_t most = s->limit - 1;
    return holds(s, q + @U@_POPULATION_KEPT_U, size, 0, unity) &&
           holds(s, q + @U@_POPULATION_KEPT_V, size, 0, unity) &&
           holds(s, q + @U@_POPULATION_BIAS, size, INT32_MIN, INT32_MAX) &&
           holds(s, q + @U@_POPULATION_THRESHOLD, size, 0, most) &&
           holds(s, q + @U@_POPULATION_DROP, size, -most, most) &&
           holds(s, q + @U@_POPULATION_U_INIT, size, -most, most) &&
           holds(s, q + @U@_POPULATION_V_INIT, size, -most, most) && good_resets(s, q, size);
}

static int good_population(scene *s, const uint8_t *q)
{
    uint32_t size = @P@_u32(q + @U@_POPULATION_SIZE);
    uint32_t interval = @P@_u32(q + @U@_POPULATION_RESET_INTERVAL);
    uint64_t words = (uint64_t)size * (q[@U@_POPULATION_KEEPS_U] != 0u ? 2u : 1u) + s->words;
    words += ((uint64_t)size + 3u) / 4u;
    if (size == 0u || @P@_u32(q + @U@_POPULATION_STATE) != s->words ||
        words > (uint64_t)(INT32_MAX / 4) || q[@U@_POPULATION_COUNT_UNIT] > 31u ||
        (interval != 0u && (s->cycle % interval != 0u ||
                            @P@_u32(q + @U@_POPULATION_RESET_OFFSET) >= interval))) {
        return 0;
    }
    s->words = (uint32_t)words;
    return good_registers(s, q, size);
}

/* Whether the numbers that hold for the whole network make sense. */
static int good_network(scene *s)
{
    const uint8_t *network = s->blob + @U@_HEADER_BYTES;
    uint32_t bits = network[@U@_NETWORK_STATE_BITS], input = network[@U@_NETWORK_INPUT_BITS];
    uint32_t sign = network[@U@_NETWORK_INPUT_SIGNED];
    uint64_t records = (uint64_t)s->projections * @U@_PROJECTION_BYTES +
                       (uint64_t)s->populations * @U@_POPULATION_BYTES;
    return s->populations > 0u && s->projections > 0u && s->inputs > 0u &&
           s->inputs <= (uint32_t)INT32_MAX / 4u &&
           records <= s->length - @U@_HEADER_BYTES - @U@_NETWORK_BYTES && bits >= 3u &&
           bits <= 31u && network[@U@_NETWORK_DECAY_BITS] >= 1u &&
           network[@U@_NETWORK_DECAY_BITS] <= 30u &&
           network[@U@_NETWORK_STATE_SHIFT] <= 29u && network[@U@_NETWORK_READOUT] <= @U@_MAX &&
           network[@U@_NETWORK_INPUT_KIND] <= 2u && sign <= 1u && input > sign && input <= 24u &&
           network[@U@_NETWORK_MARGIN_UNIT] <= 31u && s->cycle > 0u &&
           s->cycle <= (uint32_t)INT32_MAX;
}

static int good_tables(scene *s)
{
    uint32_t k, n, known = 0, outputs, votes = @P@_u32(s->blob + @U@_HEADER_BYTES +
                                                       @U@_NETWORK_VOTES);
    if (!good_network(s)) {
        return 0;
    }
    s->limit = (int32_t)((uint32_t)1 << (s->blob[@U@_HEADER_BYTES + @U@_NETWORK_STATE_BITS] - 1u));
    s->words = 1u;
    for (k = 0; k < s->populations; k++) {
        if (!good_population(s, @P@_population(s->blob, k))) {
            return 0;
        }
    }
    for (k = 0; k < s->populations; k++) {
        const uint8_t *q = @P@_population(s->blob, k);
        uint32_t count = @P@_u16(q + @U@_POPULATION_COUNT);
        if (@P@_u16(q + @U@_POPULATION_FIRST) != known || count == 0u ||
            count > s->projections - known) {
            return 0;
        }
        for (n = 0; n < count; n++) {
            if (!good_projection(s, @P@_projection(s->blob, known + n), k)) {
                return 0;
            }
        }
        known += count;
    }
    outputs = @P@_neurons(s->blob, s->populations);
    return known == s->projections && votes > 0u && outputs % votes == 0u &&
           (votes == 1u || s->blob[@U@_HEADER_BYTES + @U@_NETWORK_READOUT] == @U@_SUM) &&
           4u * s->words == @P@_u32(s->blob + @U@_HEADER_STATE_BYTES);
}

int @P@_load(@P@_network *network, const void *blob, size_t bytes)
{
    static const uint8_t magic[8] = {'O', 'S', 'B', 'C', 'N', 'E', 'T', 0};
    const uint8_t *at = (const uint8_t *)blob;
    scene s;
    uint32_t i;
    network->blob = NULL;
#ifdef OSBC_TELEMETRY
    network->record = NULL;
#endif
    if (at == NULL) {
        return @U@_BAD_BUFFER;
    }
    if (bytes < @U@_HEADER_BYTES + @U@_NETWORK_BYTES) {
        return @U@_BAD_BLOB;
    }
    for (i = 0; i < 8u; i++) {
        if (at[i] != magic[i]) {
            return @U@_BAD_BLOB;
        }
    }
    /* A layout of the future may have another header, so its CRC is not looked at. */
    i = @P@_u16(at + @U@_HEADER_LAYOUT);
    if (i == 0u || i > @U@_LAYOUT) {
        return @U@_OTHER_LAYOUT;
    }
    s.blob = at;
    s.length = @P@_u32(at + @U@_HEADER_LENGTH);
    if (@P@_crc32(0u, at, @U@_HEADER_HEADER_CRC) != @P@_u32(at + @U@_HEADER_HEADER_CRC) ||
        s.length > bytes || s.length < @U@_HEADER_BYTES + @U@_NETWORK_BYTES ||
        @P@_crc32(0u, at + @U@_HEADER_BYTES, s.length - @U@_HEADER_BYTES) !=
            @P@_u32(at + @U@_HEADER_BODY_CRC)) {
        return @U@_BAD_BLOB;
    }
    at += @U@_HEADER_BYTES;
    s.inputs = @P@_u32(at + @U@_NETWORK_INPUTS);
    s.cycle = @P@_u32(at + @U@_NETWORK_CYCLE);
    s.populations = @P@_u16(at + @U@_NETWORK_POPULATIONS);
    s.projections = @P@_u16(at + @U@_NETWORK_PROJECTIONS);
    if (!good_tables(&s)) {
        return @U@_BAD_BLOB;
    }
    network->blob = s.blob;
    return @U@_OK;
}
