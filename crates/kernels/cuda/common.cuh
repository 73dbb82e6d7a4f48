// What every kernel of this folder starts with: element types, conversions, sums over a block, the random generator.
//
// It needs no header of CUDA's, so that a machine needs the NVRTC library alone. ELEMENT is the type of the
// computation: 0 float, 1 bfloat16, 2 float16. Everything is summed in float, in an order that depends on shapes alone:
// no atomics anywhere, the same bytes every time.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct __align__(2) bf16 { u16 bits; };
struct __align__(2) f16 { u16 bits; };

#if ELEMENT == 0
typedef float element;
#elif ELEMENT == 1
typedef bf16 element;
#else
typedef f16 element;
#endif

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// To the nearest, ties to even.
__device__ __forceinline__ void narrow(float x, float& y) { y = x; }
__device__ __forceinline__ void narrow(float x, bf16& y) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}
__device__ __forceinline__ void narrow(float x, f16& y) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}
template <typename E>
__device__ __forceinline__ E to(float x) {
    E y;
    narrow(x, y);
    return y;
}

// As many values as one load or store of 16 bytes holds.
template <typename E>
struct __align__(16) Pack {
    static constexpr int SIZE = 16 / sizeof(E);
    E values[SIZE];
};

// Sums over the 32 lanes of a warp; every lane has the result.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, distance));
    return x;
}

// Where entry i of a map of 256 stands in shared memory: the places that a search looks at in one step lie in different
// banks.
constexpr int SKEWED = 256 + 8;
__device__ __forceinline__ u32 skewed(u32 i) { return i + (i >> 5); }

// The entry of an ascending map of 256, in the order of `skewed`, that is nearest to `value`: a search of seven steps
// from entry 127, then a comparison with the midpoint to the neighbour that the search passed on the other side. NaN
// gives 0.
__device__ __forceinline__ u32 nearest(const float* map, float value) {
    u32 lower = 0, pivot = 127, upper = 255;
#pragma unroll
    for (u32 step = 64; step > 0; step >>= 1) {
        if (value > map[skewed(pivot)]) {
            lower = pivot;
            pivot += step;
        } else {
            upper = pivot;
            pivot -= step;
        }
    }
    const float found = map[skewed(pivot)];
    const bool above = value > found;
    const u32 other = above ? upper : lower;
    const float middle = __fmul_rn(__fadd_rn(map[skewed(other)], found), 0.5f);
    return (above ? value > middle : value < middle) ? other : pivot;
}

// Sum over a block of a multiple of 32 threads, at most 1024; every thread has the result. `scratch` has 33 floats of
// shared memory and may be used again at once.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
    __syncthreads();
    if (threadIdx.x < 32) {
        float y = threadIdx.x < (blockDim.x >> 5) ? scratch[threadIdx.x] : 0.0f;
        y = warp_sum(y);
        if (threadIdx.x == 0) scratch[32] = y;
    }
    __syncthreads();
    return scratch[32];
}

// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011): four random words for a counter.
struct Words { u32 x, y, z, w; };
__device__ __forceinline__ Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

// Four neighbouring values: as many channels as one counter of the dropout serves.
template <typename E>
struct __align__(4 * sizeof(E)) Quad { E values[4]; };

// Four values, or those of them that are `left`, then zeros. `vector`: the address is aligned, and all are left. A
// kernel whose time counts decides on it once, at its start: a load behind a branch of its own is waited for in that
// branch.
template <typename E>
__device__ __forceinline__ void load_quad(const E* from, int left, bool vector, float (&to)[4]) {
    if (vector) {
        const Quad<E> quad = *reinterpret_cast<const Quad<E>*>(from);
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = widen(quad.values[j]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = j < left ? widen(from[j]) : 0.0f;
    }
}
template <typename E>
__device__ __forceinline__ void store_quad(E* target, int left, bool vector, const float (&from)[4]) {
    if (vector) {
        Quad<E> quad;
#pragma unroll
        for (int j = 0; j < 4; ++j) quad.values[j] = to<E>(from[j]);
        *reinterpret_cast<Quad<E>*>(target) = quad;
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < left) target[j] = to<E>(from[j]);
    }
}

// Two neighbouring fours; `vector`: the eight together are aligned, and all left.
template <typename E>
struct __align__(16) QuadPair { Quad<E> quads[2]; };
template <typename E>
__device__ __forceinline__ void load_quads(const E* from, int left, bool vector, float (&first)[4],
                                           float (&second)[4]) {
    if (vector) {
        const QuadPair<E> pair = *reinterpret_cast<const QuadPair<E>*>(from);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            first[j] = widen(pair.quads[0].values[j]);
            second[j] = widen(pair.quads[1].values[j]);
        }
    } else {
        load_quad(from, left, false, first);
        load_quad(from + 4, left - 4, false, second);
    }
}
template <typename E>
__device__ __forceinline__ void store_quads(E* target, int left, bool vector, const float (&first)[4],
                                            const float (&second)[4]) {
    if (vector) {
        QuadPair<E> pair;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            narrow(first[j], pair.quads[0].values[j]);
            narrow(second[j], pair.quads[1].values[j]);
        }
        *reinterpret_cast<QuadPair<E>*>(target) = pair;
    } else {
        store_quad(target, left, false, first);
        store_quad(target + 4, left - 4, false, second);
    }
}

// The adapters of one group and their dropout, by value: `group_words` in ops/lora_operands.rs writes it.
struct LoraAdapter {
    const float* a;  // [rank, width]
    float factor;
    u32 module;
    int column;
    int rank;
};
struct LoraDropout {
    const int* places;
    const int* positions;
    u32 key0, key1, threshold;
    int drops;
};
struct LoraGroup {
    LoraAdapter adapters[3];
    LoraDropout dropout;
    i64 count;
};

// A token's part of the counters.
struct TokenKey { u32 position, place; };
__device__ __forceinline__ TokenKey token_key(const LoraDropout& dropout, i64 token) {
    if (!dropout.drops) return {};
    return {u32(dropout.positions[token]), u32(dropout.places[token])};
}

// Bit j is set if channel `4 block + j` of the token is kept. Callers ask first whether there is a dropout, and for all
// that they need at once: each counter is a long chain of its own.
__device__ __forceinline__ u32 keep_bits(const LoraDropout& dropout, TokenKey key, u32 module, u32 block) {
    const Words words = philox(block, key.position, key.place, module, dropout.key0, dropout.key1);
    const u32 threshold = dropout.threshold;
    return u32(words.x >= threshold) | u32(words.y >= threshold) << 1 | u32(words.z >= threshold) << 2 |
           u32(words.w >= threshold) << 3;
}
#if ELEMENT != 0
// Matrix products of a warp (PTX, mma.m16n8k16), and copies to shared memory in the background. Of a lane, with
// g = lane / 4 and t = lane % 4: A holds (row g, k 2t and 2t+1), (g+8, same k), (g, k+8), (g+8, k+8); B holds
// (k 2t and 2t+1, column g), (k+8, g); C holds (g, columns 2t and 2t+1), (g+8, same columns).

// Where a thing in shared memory lies, for the functions below.
__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 matrices; lane i gives the address of row i % 8 of matrix i / 8, 16 bytes. Register m is of matrix m:
// row g, columns 2t and 2t+1.
__device__ __forceinline__ void load_matrices(u32 (&x)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
}
// The same, transposed: rows 2t and 2t+1, column g.
__device__ __forceinline__ void load_transposed(u32 (&x)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
}

// C += A B
__device__ __forceinline__ void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if ELEMENT == 1
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
#endif
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two values in a register, the first in the low half.
__device__ __forceinline__ u32 pack_pair(float low, float high) {
    u32 pair;
#if ELEMENT == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

// 16 or 4 bytes to shared memory; zeros, and nothing is read, where there is nothing to copy.
__device__ __forceinline__ void copy16(u32 to, const void* from, bool copy) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(copy ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy4(u32 to, const void* from, bool copy) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(copy ? 4 : 0) : "memory");
}
// Waits for all copies of this thread.
__device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 2^x; 0 for -infinity.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// The gradient of an augmented input. A warp has ROWS rows, 8 or 4; a lane, with g = lane / 4 and q = lane % 4, has
// four neighbouring channels of two neighbouring rows. Of 8 rows, the lanes of one g have the same channels; of 4 rows,
// lanes with q of 2 and 3 have those `LORA_SET` further on, so that the halves of the inner dimension, each as long as
// eight ranks, serve different channels.
constexpr int LORA_SET = 32;
template <int ROWS>
__device__ __forceinline__ int lora_row() {
    return 2 * (threadIdx.x & (ROWS / 2 - 1));
}
// The first of a lane's channels, behind that of the first lane of its g.
template <int ROWS>
__device__ __forceinline__ int lora_set() {
    return ROWS == 4 ? int(threadIdx.x & 2) * (LORA_SET / 2) : 0;
}

#if ELEMENT != 0
// What a lane brings to a product of eight ranks: A at ranks 2q and 2q + 1, and a row's inner values there.
template <int ROWS>
struct LoraFragment {
    static constexpr int SETS = 8 / ROWS;
    float4 even[SETS], odd[SETS];
    u32 inner;
};
template <int ROWS>
__device__ __forceinline__ LoraFragment<ROWS> load_fragment(const LoraAdapter& adapter, const element* row, int width,
                                                            int channel, int first_rank) {
    LoraFragment<ROWS> fragment;
    // Channels and ranks that do not exist do as the last ones; the inner values of such ranks are zero.
    const int rank = first_rank + 2 * int(threadIdx.x & 3), last = adapter.rank - 1;
    const float* even = adapter.a + i64(min(rank, last)) * width;
    const float* odd = adapter.a + i64(min(rank + 1, last)) * width;
#pragma unroll
    for (int set = 0; set < 8 / ROWS; ++set) {
        const int i = min(channel + set * LORA_SET, width - 4);
        fragment.even[set] = *reinterpret_cast<const float4*>(even + i);
        fragment.odd[set] = *reinterpret_cast<const float4*>(odd + i);
    }
    row += adapter.column;
    const u32 low = row[min(rank, last)].bits, high = row[min(rank + 1, last)].bits;
    fragment.inner = (rank <= last ? low : 0) | (rank < last ? high << 16 : 0);
    return fragment;
}
// Adds a product of eight ranks: a lane's channels 2t and 2t + 1 are rows g and g + 8 of tile t.
template <int ROWS>
__device__ __forceinline__ void multiply_fragment(const LoraFragment<ROWS>& fragment, float (&tiles)[2][4]) {
    constexpr int LAST = 8 / ROWS - 1;
    const bool second = ROWS == 4 && (threadIdx.x & 16);
    const u32 b0 = second ? 0 : fragment.inner, b1 = second ? fragment.inner : 0;
    const float4 &even = fragment.even[0], &odd = fragment.odd[0];
    u32 a[2][4] = {{pack_pair(even.x, odd.x), pack_pair(even.y, odd.y)},
                   {pack_pair(even.z, odd.z), pack_pair(even.w, odd.w)}};
    if (ROWS == 4) {
        const float4 &far_even = fragment.even[LAST], &far_odd = fragment.odd[LAST];
        a[0][2] = pack_pair(far_even.x, far_odd.x), a[0][3] = pack_pair(far_even.y, far_odd.y);
        a[1][2] = pack_pair(far_even.z, far_odd.z), a[1][3] = pack_pair(far_even.w, far_odd.w);
    }
    multiply_add(tiles[0], a[0], b0, b1);
    multiply_add(tiles[1], a[1], b0, b1);
}
#endif

// Adds the adapters' part to a lane's values. `dx` is the block's first row, `channel` the first of the lane's g. All
// lanes of a warp call it, those behind the last channel too.
template <int ROWS>
__device__ __forceinline__ void add_lora(const LoraGroup& group, const element* dx, int dx_ld, int rows,
                                         const TokenKey (&keys)[2], int width, int channel, bool vector,
                                         float (&values)[2][4]) {
    const int own = channel + lora_set<ROWS>(), row = lora_row<ROWS>();
    for (int n = 0; n < int(group.count); ++n) {
        const LoraAdapter& adapter = group.adapters[n];
        float sums[2][4] = {};
        u32 keep[2] = {15, 15};
        const auto masks = [&] {
            if (!group.dropout.drops) return;
#pragma unroll
            for (int i = 0; i < 2; ++i) keep[i] = keep_bits(group.dropout, keys[i], adapter.module, u32(own) / 4);
        };
#if ELEMENT != 0
        if (vector) {
            const int column = (threadIdx.x & 31) / 4 % ROWS;
            const element* inner = dx + i64(min(column, rows - 1)) * dx_ld;
            // The masks are made while the first values are on their way.
            const LoraFragment<ROWS> fragment = load_fragment<ROWS>(adapter, inner, width, channel, 0);
            masks();
            float tiles[2][4] = {};
            multiply_fragment<ROWS>(fragment, tiles);
#pragma unroll 1
            for (int rank = 8; rank < adapter.rank; rank += 8)
                multiply_fragment<ROWS>(load_fragment<ROWS>(adapter, inner, width, channel, rank), tiles);
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int i = 0; i < 2; ++i) sums[i][j] = tiles[j / 2][j % 2 * 2 + i];
        } else
#endif
        {
            masks();
            for (int r = 0; r < adapter.rank; ++r) {
                float weights[4];
                load_quad(adapter.a + i64(r) * width + own, width - own, vector && own < width, weights);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float inner = widen(dx[i64(min(row + i, rows - 1)) * dx_ld + adapter.column + r]);
#pragma unroll
                    for (int j = 0; j < 4; ++j) sums[i][j] += inner * widen(to<element>(weights[j]));
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) values[i][j] += keep[i] >> j & 1 ? adapter.factor * sums[i][j] : 0.0f;
    }
}
