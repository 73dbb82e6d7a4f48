// Causal attention within each sample of a packed pass, for many short samples: forward and backward, without atomics.
//
// Rows come in blocks of 64 of one sample. The list of work has a block an entry, (first row of the sample, its length,
// number of the block), those far down first: they attend to the most, and what takes longest must begin first. A
// thread block has 8 warps. For queries it takes one block of rows of two heads that share their key head (warps 0-3
// and 4-7; the second half idles where a head is left over), so that keys and values are read once for both.
//
// Rows behind a sample's end are zeros in shared memory, and neither read nor written in global memory. Keys behind it
// stand behind every query, so that the causal mask hides them too.
#if ELEMENT != 0

constexpr int ROWS = 64;
constexpr int THREADS = 256;
constexpr float LOG2_E = 1.4426950408889634f;
__device__ __forceinline__ float infinity() { return __uint_as_float(0x7F800000u); }

struct Item { int start, length, block, unused; };

struct Shape {
    i64 q_ld, k_ld, v_ld, dy_ld;  // between rows
    int tokens, heads, groups, items;
    float scale, unused;
};

// A block of rows in shared memory, in chunks of 16 bytes. A row's chunks are permuted among themselves, so that one
// column's chunks of 8 rows fall into different banks.
template <int D>
struct Tile {
    static constexpr int CHUNKS = D / 8;
    static constexpr int ROW_BYTES = D * 2;
    static constexpr int BYTES = ROWS * ROW_BYTES;
    static constexpr int PERIOD = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;

    static __device__ __forceinline__ u32 at(int row, int chunk) {
        const int turn = PERIOD == 8 ? row & 7 : PERIOD == 4 ? (row >> 1) & 3 : (row >> 2) & 1;
        return row * ROW_BYTES + (chunk ^ turn) * 16;
    }
    // The address `steps` pairs of chunks behind one of the first pair.
    static __device__ __forceinline__ u32 step(u32 address, int steps) {
        constexpr int pairs = PERIOD / 2;
        return (address ^ (steps % pairs * 32)) + steps / pairs * (pairs * 32);
    }
    // Addresses for a lane, of the first pair of chunks: rows by 16 lanes, chunks by the halves of the warp (A, and B
    // transposed); or rows 0-7 and 8-15 by the halves, chunks by the quarters (B).
    static __device__ __forceinline__ u32 lane_by_rows(int lane) { return at(lane & 15, lane >> 4); }
    static __device__ __forceinline__ u32 lane_by_chunks(int lane) {
        return at((lane & 7) + (lane >> 4) * 8, (lane >> 3) & 1);
    }
    // Copies the rows from `row` of a matrix, by all threads; zeros for those not below `end`.
    static __device__ __forceinline__ void copy(u32 to, const element* from, i64 ld, int row, int end) {
        for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            const int r = i / CHUNKS, chunk = i % CHUNKS;
            const bool inside = row + r < end;
            copy16(to + at(r, chunk), from + (inside ? r * ld + chunk * 8 : 0), inside);
        }
    }
    // Writes 16 rows of results, held as C of products, by one warp: through 16 rows of a tile at `stage`, which no
    // other warp uses.
    static __device__ __forceinline__ void write(char* stage, const float (&c)[CHUNKS][4], float factor0, float factor8,
                                                 element* to, i64 ld, int rows) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
        for (int n = 0; n < CHUNKS; ++n) {
            *reinterpret_cast<u32*>(stage + at(g, n) + t * 4) = pack_pair(c[n][0] * factor0, c[n][1] * factor0);
            *reinterpret_cast<u32*>(stage + at(g + 8, n) + t * 4) = pack_pair(c[n][2] * factor8, c[n][3] * factor8);
        }
        __syncwarp();
        for (int i = lane; i < 16 * CHUNKS; i += 32) {
            const int r = i / CHUNKS, chunk = i % CHUNKS;
            const uint4 values = *reinterpret_cast<const uint4*>(stage + at(r, chunk));
            if (r < rows) *reinterpret_cast<uint4*>(to + r * ld + chunk * 8) = values;
        }
    }
};

// Two neighbouring blocks of C, rounded, as A of the next product: 16 of its k.
__device__ __forceinline__ void pack_a(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_pair(left[0], left[1]);
    a[1] = pack_pair(left[2], left[3]);
    a[2] = pack_pair(right[0], right[1]);
    a[3] = pack_pair(right[2], right[3]);
}

// The part of the work that a thread block for queries has.
struct Queries {
    int group, head, heads;  // key head; first query head, and how many
    __device__ __forceinline__ Queries(const Shape& shape, int pair) {
        const int share = shape.heads / shape.groups, pairs = (share + 1) / 2;
        group = pair / pairs;
        const int first = pair % pairs * 2;
        head = group * share + first;
        heads = min(2, share - first);
    }
};
__device__ __forceinline__ int query_pairs(const Shape& shape) {
    return shape.groups * ((shape.heads / shape.groups + 1) / 2);
}

// y [T, H, D] and lse [H, T]. Shared memory: queries of two heads, twice keys and values.
template <int D>
__device__ __forceinline__ void forward(const element* q, const element* k, const element* v, const Item* items,
                                        const Shape& shape, element* y, float* lse) {
    typedef Tile<D> Tile;
    extern __shared__ __align__(1024) char shared[];
    const u32 base = shared_address(shared);
    const Item item = items[blockIdx.x / query_pairs(shape)];
    const Queries part(shape, blockIdx.x % query_pairs(shape));
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = warp >> 2, first = (warp & 3) * 16;
    const int row = item.block * ROWS, g = lane >> 2, t = lane & 3;
    const bool busy = half < part.heads;
    q += i64(item.start + row) * shape.q_ld + i64(part.head) * D;
    for (int h = 0; h < part.heads; ++h) Tile::copy(base + h * Tile::BYTES, q + h * D, shape.q_ld, row, item.length);
    const auto load = [&](int block) {
        const u32 to = base + (2 + (block & 1) * 2) * Tile::BYTES;
        const int start = item.start + block * ROWS;
        Tile::copy(to, k + i64(start) * shape.k_ld + part.group * D, shape.k_ld, block * ROWS, item.length);
        const element* values = v + i64(start) * shape.v_ld + part.group * D;
        Tile::copy(to + Tile::BYTES, values, shape.v_ld, block * ROWS, item.length);
    };
    load(0);

    const u32 q_lane = base + half * Tile::BYTES + first * Tile::ROW_BYTES + Tile::lane_by_rows(lane);
    const float factor = shape.scale * LOG2_E;
    float sum[2] = {0.0f, 0.0f}, top[2] = {-infinity(), -infinity()};
    float out[Tile::CHUNKS][4] = {};
    for (int block = 0; block <= item.block; ++block) {
        // Behind the barrier everybody's copies have come, and nobody reads the other buffer any more.
        copies_done();
        __syncthreads();
        if (block < item.block) load(block + 1);
        if (!busy) continue;
        const u32 keys = base + (2 + (block & 1) * 2) * Tile::BYTES;
        const bool diagonal = block == item.block;
#pragma unroll 1
        for (int key = 0; key < ROWS && !(diagonal && key > first + 15); key += 32) {
            const u32 k_lane = keys + key * Tile::ROW_BYTES + Tile::lane_by_chunks(lane);
            float s[4][4] = {};
#pragma unroll
            for (int i = 0; i < D / 16; ++i) {
                u32 a[4], b[4];
                load_matrices(a, Tile::step(q_lane, i));
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    load_matrices(b, Tile::step(k_lane, i) + n * 16 * Tile::ROW_BYTES);
                    multiply_add(s[2 * n], a, b[0], b[1]);
                    multiply_add(s[2 * n + 1], a, b[2], b[3]);
                }
            }
            if (diagonal && key + 31 > first) {
#pragma unroll
                for (int n = 0; n < 4; ++n)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        if (key + n * 8 + t * 2 + (e & 1) > first + g + (e >> 1) * 8) s[n][e] = -infinity();
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float high = top[r];
#pragma unroll
                for (int n = 0; n < 4; ++n) high = fmaxf(high, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
                high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, 1));
                high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, 2));
                const float correction = power_of_two((top[r] - high) * factor);
                top[r] = high;
                sum[r] *= correction;
#pragma unroll
                for (int n = 0; n < Tile::CHUNKS; ++n) {
                    out[n][2 * r] *= correction;
                    out[n][2 * r + 1] *= correction;
                }
#pragma unroll
                for (int n = 0; n < 4; ++n)
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; ++e) {
                        s[n][e] = power_of_two(s[n][e] * factor - high * factor);
                        sum[r] += s[n][e];
                    }
            }
            const u32 v_lane = keys + Tile::BYTES + key * Tile::ROW_BYTES + Tile::lane_by_rows(lane);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                u32 a[4];
                pack_a(a, s[2 * i], s[2 * i + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; ++n) {
                    u32 b[4];
                    load_transposed(b, Tile::step(v_lane, n) + i * 16 * Tile::ROW_BYTES);
                    multiply_add(out[2 * n], a, b[0], b[1]);
                    multiply_add(out[2 * n + 1], a, b[2], b[3]);
                }
            }
        }
    }
    if (!busy) return;
    const int rows = item.length - row - first, head = part.head + half;
    const i64 token = i64(item.start) + row + first;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        sum[r] += __shfl_xor_sync(0xFFFFFFFFu, sum[r], 1);
        sum[r] += __shfl_xor_sync(0xFFFFFFFFu, sum[r], 2);
        if (t == 0 && g + r * 8 < rows)
            lse[i64(head) * shape.tokens + token + g + r * 8] = top[r] * shape.scale + logf(sum[r]);
    }
    // A warp's own queries are read by no other.
    __syncwarp();
    const i64 ld = i64(shape.heads) * D;
    Tile::write(shared + half * Tile::BYTES + first * Tile::ROW_BYTES, out, 1.0f / sum[0], 1.0f / sum[1],
                y + token * ld + i64(head) * D, ld, rows);
}

// delta [H, T]: the sum of dy y over a head. 16 lanes a row.
template <int D>
__device__ __forceinline__ void products(const element* dy, const element* y, const Shape& shape, float* delta) {
    const int token = blockIdx.x * 16 + (threadIdx.x >> 4), head = blockIdx.y, chunk = threadIdx.x & 15;
    float sum = 0.0f;
    if (token < shape.tokens && chunk < D / 8) {
        const i64 column = i64(head) * D + chunk * 8;
        const auto a = *reinterpret_cast<const Pack<element>*>(dy + token * shape.dy_ld + column);
        const auto b = *reinterpret_cast<const Pack<element>*>(y + i64(token) * shape.heads * D + column);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += widen(a.values[i]) * widen(b.values[i]);
    }
#pragma unroll
    for (int distance = 8; distance > 0; distance >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    if (token < shape.tokens && chunk == 0) delta[i64(head) * shape.tokens + token] = sum;
}

// The gradients of a block of keys and values, [T, G, D]: over the query heads of the group, and over the blocks of
// queries from its own on. A warp has 16 keys and one half of every block of queries; at the end the halves are added.
// Shared memory: keys, values, twice queries and dy, twice lse and delta.
template <int D>
__device__ __forceinline__ void backward_keys(const element* dy, const element* q, const element* k, const element* v,
                                              const float* lse, const float* delta, const Item& item, int group,
                                              const Shape& shape, element* dk, element* dv) {
    typedef Tile<D> Tile;
    extern __shared__ __align__(1024) char shared[];
    const u32 base = shared_address(shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = warp >> 2, first = (warp & 3) * 16;
    const int g = lane >> 2, t = lane & 3, share = shape.heads / shape.groups;
    const int blocks = (item.length + ROWS - 1) / ROWS, block = blocks - 1 - item.block, row = block * ROWS;
    const i64 token = i64(item.start) + row;
    Tile::copy(base, k + token * shape.k_ld + i64(group) * D, shape.k_ld, row, item.length);
    Tile::copy(base + Tile::BYTES, v + token * shape.v_ld + i64(group) * D, shape.v_ld, row, item.length);
    const int steps = share * (item.block + 1);
    const auto load = [&](int step) {
        const int head = group * share + step / (item.block + 1), at = (block + step % (item.block + 1)) * ROWS;
        const u32 to = base + (2 + (step & 1) * 2) * Tile::BYTES;
        const i64 from = i64(item.start) + at;
        Tile::copy(to, q + from * shape.q_ld + i64(head) * D, shape.q_ld, at, item.length);
        Tile::copy(to + Tile::BYTES, dy + from * shape.dy_ld + i64(head) * D, shape.dy_ld, at, item.length);
        if (threadIdx.x < 2 * ROWS) {
            const int r = threadIdx.x & (ROWS - 1);
            const bool inside = at + r < item.length;
            const float* values = (threadIdx.x < ROWS ? lse : delta) + i64(head) * shape.tokens + from;
            const u32 place = (step & 1) * 2 * ROWS + threadIdx.x;
            copy4(base + 6 * Tile::BYTES + place * 4, values + (inside ? r : 0), inside);
        }
    };
    load(0);

    const u32 k_lane = base + first * Tile::ROW_BYTES + Tile::lane_by_rows(lane), v_lane = k_lane + Tile::BYTES;
    const float factor = shape.scale * LOG2_E;
    float keys[Tile::CHUNKS][4] = {}, values[Tile::CHUNKS][4] = {};
    for (int step = 0; step < steps; ++step) {
        copies_done();
        __syncthreads();
        if (step + 1 < steps) load(step + 1);
        const bool diagonal = step % (item.block + 1) == 0;
        // All of these queries before all of these keys.
        if (diagonal && half * 32 + 31 < first) continue;
        const u32 queries = base + (2 + (step & 1) * 2) * Tile::BYTES + half * 32 * Tile::ROW_BYTES;
        const u32 q_lane = queries + Tile::lane_by_chunks(lane);
        float p[4][4] = {}, ds[4][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            u32 a[4], b[4];
            load_matrices(a, Tile::step(k_lane, i));
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                load_matrices(b, Tile::step(q_lane, i) + n * 16 * Tile::ROW_BYTES);
                multiply_add(p[2 * n], a, b[0], b[1]);
                multiply_add(p[2 * n + 1], a, b[2], b[3]);
            }
            load_matrices(a, Tile::step(v_lane, i));
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                load_matrices(b, Tile::step(q_lane + Tile::BYTES, i) + n * 16 * Tile::ROW_BYTES);
                multiply_add(ds[2 * n], a, b[0], b[1]);
                multiply_add(ds[2 * n + 1], a, b[2], b[3]);
            }
        }
        const float* sums = reinterpret_cast<const float*>(shared + 6 * Tile::BYTES);
        sums += (step & 1) * 2 * ROWS + half * 32;
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int query = n * 8 + t * 2 + (e & 1);
                const bool past = !diagonal || first + g + (e >> 1) * 8 <= half * 32 + query;
                p[n][e] = past ? power_of_two(p[n][e] * factor - sums[query] * LOG2_E) : 0.0f;
                ds[n][e] = p[n][e] * (ds[n][e] - sums[ROWS + query]);
            }
        const u32 turned = queries + Tile::lane_by_rows(lane);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            u32 a[4];
            pack_a(a, p[2 * i], p[2 * i + 1]);
            u32 c[4];
            pack_a(c, ds[2 * i], ds[2 * i + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; ++n) {
                u32 b[4];
                load_transposed(b, Tile::step(turned + Tile::BYTES, n) + i * 16 * Tile::ROW_BYTES);
                multiply_add(values[2 * n], a, b[0], b[1]);
                multiply_add(values[2 * n + 1], a, b[2], b[3]);
                load_transposed(b, Tile::step(turned, n) + i * 16 * Tile::ROW_BYTES);
                multiply_add(keys[2 * n], c, b[0], b[1]);
                multiply_add(keys[2 * n + 1], c, b[2], b[3]);
            }
        }
    }
    // The first half of the warps finishes the values and the second the keys, each with what the other has of them.
    __syncthreads();
    float* exchange = reinterpret_cast<float*>(shared + 2 * Tile::BYTES) + (warp & 3) * 32 + lane;
    float* mine = exchange + half * 128 * (D / 2);
    float* theirs = exchange + (1 - half) * 128 * (D / 2);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) mine[i * 128] = half == 0 ? keys[i / 4][i % 4] : values[i / 4][i % 4];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < D / 2; ++i) {
        const float other = theirs[i * 128];
        values[i / 4][i % 4] = (half == 0 ? values[i / 4][i % 4] : keys[i / 4][i % 4]) + other;
    }
    const i64 ld = i64(shape.groups) * D;
    const float last = half == 0 ? 1.0f : shape.scale;
    Tile::write(shared + half * Tile::BYTES + first * Tile::ROW_BYTES, values, last, last,
                (half == 0 ? dv : dk) + (token + first) * ld + i64(group) * D, ld, item.length - row - first);
}

// The gradients of a block of queries of two heads, [T, H, D]. Shared memory: twice keys and values, dy.
template <int D>
__device__ __forceinline__ void backward_queries(const element* dy, const element* q, const element* k,
                                                 const element* v, const float* lse, const float* delta,
                                                 const Item& item, int pair, const Shape& shape, element* dq) {
    typedef Tile<D> Tile;
    extern __shared__ __align__(1024) char shared[];
    const u32 base = shared_address(shared);
    const Queries part(shape, pair);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = warp >> 2, first = (warp & 3) * 16;
    const int row = item.block * ROWS, g = lane >> 2, t = lane & 3, rows = item.length - row - first;
    const bool busy = half < part.heads;
    const i64 token = i64(item.start) + row;
    q += token * shape.q_ld + i64(part.head) * D;
    dy += token * shape.dy_ld + i64(part.head) * D;
    k += i64(item.start) * shape.k_ld + i64(part.group) * D;
    v += i64(item.start) * shape.v_ld + i64(part.group) * D;
    for (int h = 0; h < part.heads; ++h) {
        Tile::copy(base + (2 + h) * Tile::BYTES, q + h * D, shape.q_ld, row, item.length);
        Tile::copy(base + (4 + h) * Tile::BYTES, dy + h * D, shape.dy_ld, row, item.length);
    }
    const auto load = [&](int block) {
        const u32 to = base + (block & 1) * 2 * Tile::BYTES;
        const i64 at = i64(block) * ROWS;
        Tile::copy(to, k + at * shape.k_ld, shape.k_ld, block * ROWS, item.length);
        Tile::copy(to + Tile::BYTES, v + at * shape.v_ld, shape.v_ld, block * ROWS, item.length);
    };
    load(0);
    float sums[2] = {0.0f, 0.0f}, deltas[2] = {0.0f, 0.0f};
#pragma unroll
    for (int r = 0; r < 2; ++r)
        if (busy && g + r * 8 < rows) {
            const i64 at = i64(part.head + half) * shape.tokens + token + first + g + r * 8;
            sums[r] = lse[at] * LOG2_E;
            deltas[r] = delta[at];
        }
    copies_done();
    __syncthreads();
    // Queries move to registers: the second buffer of keys and values takes their place.
    u32 queries[D / 16][4], gradients[D / 16][4];
    const u32 q_lane = base + (2 + half) * Tile::BYTES + first * Tile::ROW_BYTES + Tile::lane_by_rows(lane);
    if (busy) {
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            load_matrices(queries[i], Tile::step(q_lane, i));
            load_matrices(gradients[i], Tile::step(q_lane + 2 * Tile::BYTES, i));
        }
    }
    const float factor = shape.scale * LOG2_E;
    float out[Tile::CHUNKS][4] = {};
    for (int block = 0; block <= item.block; ++block) {
        copies_done();
        __syncthreads();
        if (block < item.block) load(block + 1);
        if (!busy) continue;
        const u32 keys = base + (block & 1) * 2 * Tile::BYTES;
        const bool diagonal = block == item.block;
#pragma unroll 1
        for (int key = 0; key < ROWS && !(diagonal && key > first + 15); key += 32) {
            const u32 k_lane = keys + key * Tile::ROW_BYTES + Tile::lane_by_chunks(lane);
            float p[4][4] = {}, ds[4][4] = {};
#pragma unroll
            for (int i = 0; i < D / 16; ++i)
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    u32 b[4];
                    load_matrices(b, Tile::step(k_lane, i) + n * 16 * Tile::ROW_BYTES);
                    multiply_add(p[2 * n], queries[i], b[0], b[1]);
                    multiply_add(p[2 * n + 1], queries[i], b[2], b[3]);
                    load_matrices(b, Tile::step(k_lane + Tile::BYTES, i) + n * 16 * Tile::ROW_BYTES);
                    multiply_add(ds[2 * n], gradients[i], b[0], b[1]);
                    multiply_add(ds[2 * n + 1], gradients[i], b[2], b[3]);
                }
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int r = e >> 1;
                    const bool past = !diagonal || key + n * 8 + t * 2 + (e & 1) <= first + g + r * 8;
                    const float probability = past ? power_of_two(p[n][e] * factor - sums[r]) : 0.0f;
                    ds[n][e] = probability * (ds[n][e] - deltas[r]);
                }
            const u32 turned = keys + key * Tile::ROW_BYTES + Tile::lane_by_rows(lane);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                u32 a[4];
                pack_a(a, ds[2 * i], ds[2 * i + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; ++n) {
                    u32 b[4];
                    load_transposed(b, Tile::step(turned, n) + i * 16 * Tile::ROW_BYTES);
                    multiply_add(out[2 * n], a, b[0], b[1]);
                    multiply_add(out[2 * n + 1], a, b[2], b[3]);
                }
            }
        }
    }
    if (!busy) return;
    // The place of dy, which is in registers since the first barrier of the loop.
    const i64 ld = i64(shape.heads) * D;
    Tile::write(shared + (4 + half) * Tile::BYTES + first * Tile::ROW_BYTES, out, shape.scale, shape.scale,
                dq + (token + first) * ld + i64(part.head + half) * D, ld, rows);
}

// Both in one launch, so that short work of the second kind fills the card while the longest of the first still runs.
template <int D>
__device__ __forceinline__ void backward(const element* dy, const element* q, const element* k, const element* v,
                                         const float* lse, const float* delta, const Item* items, const Shape& shape,
                                         element* dq, element* dk, element* dv) {
    const int block = blockIdx.x, key_blocks = shape.items * shape.groups;
    if (block < key_blocks) {
        const Item item = items[block / shape.groups];
        backward_keys<D>(dy, q, k, v, lse, delta, item, block % shape.groups, shape, dk, dv);
    } else {
        const int rest = block - key_blocks, pairs = query_pairs(shape);
        const Item item = items[rest / pairs];
        backward_queries<D>(dy, q, k, v, lse, delta, item, rest % pairs, shape, dq);
    }
}

// WIDTH of the heads is the compiler's option: a model has one, and each takes seconds to compile.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention(const element* q, const element* k, const element* v, const Item* items, Shape shape, element* y,
              float* lse) {
    forward<WIDTH>(q, k, v, items, shape, y, lse);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_delta(const element* dy, const element* y, Shape shape, float* delta) {
    products<WIDTH>(dy, y, shape, delta);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward(const element* dy, const element* q, const element* k, const element* v, const float* lse,
                       const float* delta, const Item* items, Shape shape, element* dq, element* dk, element* dv) {
    backward<WIDTH>(dy, q, k, v, lse, delta, items, shape, dq, dk, dv);
}
#endif
