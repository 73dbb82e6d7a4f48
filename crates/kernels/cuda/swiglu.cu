// SwiGLU: silu(gate) * up, and the way back. gate_up [T, 2I] has the gate in its first I columns.

// Where the result is rounded to 16 bits, the card's own functions are exact enough: their error is below 1e-6.
__device__ __forceinline__ float sigmoid(float x) {
#if ELEMENT == 0
    return 1.0f / (1.0f + expf(-x));
#else
    return __fdividef(1.0f, 1.0f + __expf(-x));
#endif
}

// p [T, p_ld], of which I columns are written. A block for a row and 256 threads' part of it; a thread has as many
// channels as 16 bytes hold.
extern "C" __global__ void __launch_bounds__(256)
    swiglu(const element* gate_up, element* p, int p_ld, int width, int vector) {
    constexpr int SIZE = Pack<element>::SIZE;
    const i64 row = blockIdx.x;
    const int i = int(blockIdx.y * 256 + threadIdx.x) * SIZE;
    if (i >= width) return;
    const element* gates = gate_up + row * 2 * width + i;
    const element* ups = gates + width;
    p += row * p_ld + i;
    const auto product = [](element gate, element up) {
        const float x = widen(gate);
        return to<element>(x * sigmoid(x) * widen(up));
    };
    if (vector) {
        const Pack<element> gate = *reinterpret_cast<const Pack<element>*>(gates);
        const Pack<element> up = *reinterpret_cast<const Pack<element>*>(ups);
        Pack<element> out;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) out.values[j] = product(gate.values[j], up.values[j]);
        *reinterpret_cast<Pack<element>*>(p) = out;
    } else {
        for (int j = 0; j < SIZE && i + j < width; ++j) p[j] = product(gates[j], ups[j]);
    }
}

// dp [T, ld], gate_up [T, 2I], which becomes its gradient: a thread writes what only it has read. A block for eight rows and eight warps' part of them, 64 channels a warp; a lane has
// eight channels of two rows.
__device__ __forceinline__ void swiglu_backward(const element* dp, int dp_ld, const LoraGroup& group,
                                                element* gate_up, i64 tokens, int width, bool vector) {
    const i64 first = i64(blockIdx.x) * 8;
    const int rows = int(min(i64(8), tokens - first)), row = lora_row<8>();
    const int begin = int(blockIdx.y * 8 + threadIdx.x / 32) * 64;
    if (begin >= width) return;
    const int i = begin + int(threadIdx.x & 31) / 4 * 8;
    dp += first * dp_ld;
    float gradients[2][2][4], gates[2][2][4], ups[2][2][4];
    TokenKey keys[2];
    i64 starts[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        // Rows and channels that do not exist do as the last ones, and are not stored.
        const int inside = min(row + k, rows - 1), at = vector ? min(i, width - 8) : i;
        starts[k] = (first + inside) * 2 * width + at;
        keys[k] = token_key(group.dropout, first + inside);
        load_quads(dp + i64(inside) * dp_ld + at, width - i, vector, gradients[0][k], gradients[1][k]);
        load_quads(gate_up + starts[k], width - i, vector, gates[0][k], gates[1][k]);
        load_quads(gate_up + starts[k] + width, width - i, vector, ups[0][k], ups[1][k]);
    }
#pragma unroll
    for (int quad = 0; quad < 2; ++quad)
        add_lora<8>(group, dp, dp_ld, rows, keys, width, i + 4 * quad, vector, gradients[quad]);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        if (row + k >= rows || i >= width) continue;
#pragma unroll
        for (int quad = 0; quad < 2; ++quad)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float gate = gates[quad][k][j], gradient = gradients[quad][k][j], share = sigmoid(gate);
                gates[quad][k][j] = gradient * ups[quad][k][j] * share * (1.0f + gate * (1.0f - share));
                ups[quad][k][j] = gradient * gate * share;
            }
        store_quads(gate_up + starts[k], width - i, vector, gates[0][k], gates[1][k]);
        store_quads(gate_up + starts[k] + width, width - i, vector, ups[0][k], ups[1][k]);
    }
}
extern "C" __global__ void __launch_bounds__(256, 2)
    swiglu_backward(const element* dp, int dp_ld, const __grid_constant__ LoraGroup group, element* gate_up,
                    i64 tokens, int width, int vector) {
    if (vector) {
        swiglu_backward(dp, dp_ld, group, gate_up, tokens, width, true);
    } else {
        swiglu_backward(dp, dp_ld, group, gate_up, tokens, width, false);
    }
}
