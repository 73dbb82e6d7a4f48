// Uniform noise on the residual stream, drawn from counters. Every operation on a value is one IEEE operation with one
// rounding: the bits are those of the reference.

// In [-1, 1): of a word, as many bits as float32 holds exactly.
__device__ __forceinline__ float unit(u32 word) {
    return __fsub_rn(__fmul_rn(float(word >> 8), 1.0f / 8388608.0f), 1.0f);
}

// h [T, D] += bounds [T] * noise. Grid: x over tokens, y over D in blocks of 4 x 128: a counter is four channels.
extern "C" __global__ void __launch_bounds__(128)
    add_noise(float* h, const int* places, const int* positions, const float* bounds, u32 key0, u32 key1, u32 module,
              int width, int vector) {
    const int token = blockIdx.x;
    const u32 block = blockIdx.y * 128 + threadIdx.x;
    const int channel = int(block) * 4;
    if (channel >= width) return;
    float* at = h + i64(token) * width + channel;
    float values[4];
    load_quad(at, width - channel, vector, values);
    const Words words = philox(block, u32(positions[token]), u32(places[token]), module, key0, key1);
    const float bound = bounds[token];
    const u32 four[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = __fadd_rn(values[i], __fmul_rn(unit(four[i]), bound));
    store_quad(at, width - channel, vector, values);
}
