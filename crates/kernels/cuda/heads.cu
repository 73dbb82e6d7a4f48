// Queries and keys between projection and attention: each head normed, where the model has such norms, and turned.
// Channel i turns with i + d/2. A thread has the same few channels of both halves; `lanes` neighbouring threads, a
// power of two up to 32, share a head.

struct Heads {
    const float* norms[2];  // [d] for queries and for keys, or null
    const float* cosines;   // [P, d/2]
    const float* sines;     // [P, d/2]
    const int* positions;   // [T]
    i64 tokens;
    int heads, groups, head_dim, lanes;
    float epsilon;
    int vector;
};

constexpr int SIZE = Pack<element>::SIZE;

// SIZE values, of which `left` are there.
template <typename E>
__device__ __forceinline__ void load(const E* from, int left, bool vector, float (&to)[SIZE]) {
    if (vector) {
        struct __align__(16) Values { E values[SIZE]; };
        const Values values = *reinterpret_cast<const Values*>(from);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) to[j] = widen(values.values[j]);
    } else {
#pragma unroll
        for (int j = 0; j < SIZE; ++j) to[j] = j < left ? widen(from[j]) : 0.0f;
    }
}
// What a thread without channels adds to its head's sums.
__device__ __forceinline__ void zero_if(bool none, float (&first)[SIZE], float (&second)[SIZE]) {
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        first[j] = none ? 0.0f : first[j];
        second[j] = none ? 0.0f : second[j];
    }
}
__device__ __forceinline__ void store(element* target, int left, bool vector, const float (&from)[SIZE]) {
    if (vector) {
        Pack<element> pack;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) pack.values[j] = to<element>(from[j]);
        *reinterpret_cast<Pack<element>*>(target) = pack;
    } else {
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            if (j < left) target[j] = to<element>(from[j]);
    }
}

// Sum over the threads of a head; all of a warp's threads call it.
__device__ __forceinline__ float head_sum(float x, int lanes) {
    for (int distance = lanes >> 1; distance > 0; distance >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    return x;
}

// Where a thread works. Threads behind the last head do as if they had the last, and store nothing.
struct Place {
    i64 token;
    int head, channel, left;
    bool active;
};
__device__ __forceinline__ Place find(const Heads& heads, int count) {
    // Their number fits into 32 bits: `Heads::check`.
    const u32 number = (blockIdx.x * blockDim.x + threadIdx.x) / u32(heads.lanes), last = u32(heads.tokens) * count - 1;
    const u32 head = min(number, last), token = head / u32(count);
    Place place;
    place.token = token;
    place.head = int(head - token * count);
    place.channel = int(threadIdx.x % u32(heads.lanes)) * SIZE;
    place.left = max(heads.head_dim / 2 - place.channel, 0);
    place.active = number <= last && place.left > 0;
    return place;
}

// qkv [T, ld], its first columns the queries' and keys'; q [T, heads, d], k [T, groups, d]. Threads without a channel
// of their own read the first ones.
__device__ __forceinline__ void turn_heads(const element* qkv, i64 qkv_ld, const Heads& heads, element* q, element* k,
                                           bool vector, bool normed) {
    const int d = heads.head_dim, half = d / 2;
    const Place place = find(heads, heads.heads + heads.groups);
    const int left = place.left, channel = left > 0 ? place.channel : 0;
    const bool key = place.head >= heads.heads;
    const i64 angle = i64(heads.positions[place.token]) * half + channel;
    const element* from = qkv + place.token * qkv_ld + place.head * d + channel;
    float first[SIZE], second[SIZE], cosines[SIZE], sines[SIZE];
    load(from, left, vector, first);
    load(from + half, left, vector, second);
    load(heads.cosines + angle, left, vector, cosines);
    load(heads.sines + angle, left, vector, sines);
    if (normed) {
        const float* norm = heads.norms[key];
        float weights[2][SIZE];
        load(norm + channel, left, vector, weights[0]);
        load(norm + half + channel, left, vector, weights[1]);
        zero_if(left == 0, first, second);
        float square = 0.0f;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) square += first[j] * first[j] + second[j] * second[j];
        const float reciprocal = rsqrtf(head_sum(square, heads.lanes) / d + heads.epsilon);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) first[j] *= reciprocal * weights[0][j];
#pragma unroll
        for (int j = 0; j < SIZE; ++j) second[j] *= reciprocal * weights[1][j];
    }
    if (!place.active) return;
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        const float x = first[j], y = second[j];
        first[j] = x * cosines[j] - y * sines[j];
        second[j] = y * cosines[j] + x * sines[j];
    }
    element* target = key ? k + (place.token * heads.groups + (place.head - heads.heads)) * d
                          : q + (place.token * heads.heads + place.head) * d;
    store(target + channel, left, vector, first);
    store(target + half + channel, left, vector, second);
}
extern "C" __global__ void __launch_bounds__(256)
    turn_heads(const element* qkv, i64 qkv_ld, const __grid_constant__ Heads heads, element* q, element* k) {
    // Asked once, so that all loads of a thread are on their way together.
    const bool normed = heads.norms[0] != nullptr;
    if (heads.vector && normed) {
        turn_heads(qkv, qkv_ld, heads, q, k, true, true);
    } else if (heads.vector) {
        turn_heads(qkv, qkv_ld, heads, q, k, true, false);
    } else {
        turn_heads(qkv, qkv_ld, heads, q, k, false, normed);
    }
}

// dq [T, heads, d], dk and dv [T, groups, d], qkv as above (read only for norms), d_qkv [T, (heads + 2 groups) d]. The
// heads of values go the way of the others, with sums that nobody uses.
__device__ __forceinline__ void turn_heads_backward(const element* dq, const element* dk, const element* dv,
                                                    const element* qkv, i64 qkv_ld, const Heads& heads, element* d_qkv,
                                                    bool vector, bool normed) {
    const int d = heads.head_dim, half = d / 2, turned = heads.heads + heads.groups, count = turned + heads.groups;
    const Place place = find(heads, count);
    const int left = place.left, channel = left > 0 ? place.channel : 0;
    const int kind = place.head < heads.heads ? 0 : place.head < turned ? 1 : 2;
    const i64 angle = i64(heads.positions[place.token]) * half + channel;
    const element* from = kind == 0   ? dq + (place.token * heads.heads + place.head) * d
                          : kind == 1 ? dk + (place.token * heads.groups + (place.head - heads.heads)) * d
                                      : dv + (place.token * heads.groups + (place.head - turned)) * d;
    float first[SIZE], second[SIZE], cosines[SIZE], sines[SIZE];
    load(from + channel, left, vector, first);
    load(from + half + channel, left, vector, second);
    load(heads.cosines + angle, left, vector, cosines);
    load(heads.sines + angle, left, vector, sines);
    const auto turn = [&] {
        if (kind == 2) return;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) {
            const float x = first[j], y = second[j];
            first[j] = x * cosines[j] + y * sines[j];
            second[j] = y * cosines[j] - x * sines[j];
        }
    };
    if (normed) {
        const float* norm = heads.norms[kind == 1];
        const element* before = qkv + place.token * qkv_ld + place.head * d + channel;
        float x[SIZE], y[SIZE], weights[2][SIZE];
        load(before, left, vector, x);
        load(before + half, left, vector, y);
        load(norm + channel, left, vector, weights[0]);
        load(norm + half + channel, left, vector, weights[1]);
        // Zeros in one factor of each sum are enough.
        zero_if(left == 0, x, y);
        turn();
        float square = 0.0f, product = 0.0f;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) square += x[j] * x[j] + y[j] * y[j];
        const float reciprocal = rsqrtf(head_sum(square, heads.lanes) / d + heads.epsilon);
        if (kind < 2) {
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                first[j] *= weights[0][j];
                second[j] *= weights[1][j];
            }
        }
#pragma unroll
        for (int j = 0; j < SIZE; ++j) product += first[j] * x[j] + second[j] * y[j];
        const float share = head_sum(product, heads.lanes) / d * reciprocal * reciprocal;
        if (kind < 2) {
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                first[j] = reciprocal * (first[j] - x[j] * share);
                second[j] = reciprocal * (second[j] - y[j] * share);
            }
        }
    } else {
        turn();
    }
    if (!place.active) return;
    element* target = d_qkv + (place.token * count + place.head) * d + channel;
    store(target, left, vector, first);
    store(target + half, left, vector, second);
}
extern "C" __global__ void __launch_bounds__(256)
    turn_heads_backward(const element* dq, const element* dk, const element* dv, const element* qkv, i64 qkv_ld,
                        const __grid_constant__ Heads heads, element* d_qkv) {
    const bool normed = heads.norms[0] != nullptr;
    if (heads.vector && normed) {
        turn_heads_backward(dq, dk, dv, qkv, qkv_ld, heads, d_qkv, true, true);
    } else if (heads.vector) {
        turn_heads_backward(dq, dk, dv, qkv, qkv_ld, heads, d_qkv, true, false);
    } else {
        turn_heads_backward(dq, dk, dv, qkv, qkv_ld, heads, d_qkv, false, normed);
    }
}
