// SwiGLU: silu(gate) * up, and the way back. gate_up [T, 2I] has the gate in its first I columns.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

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

// dp [T, ld], d_gate_up [T, 2I]. A block for LORA_ROWS rows and 256 threads of four channels. Dynamic shared memory:
// LORA_ROWS floats for each column behind `width`.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(const element* dp, int dp_ld, const __grid_constant__ LoraGroup group, const element* gate_up,
                    element* d_gate_up, i64 tokens, int width, int vector) {
    extern __shared__ __align__(16) float inner[];
    const i64 first = i64(blockIdx.x) * LORA_ROWS;
    const int rows = int(min(i64(LORA_ROWS), tokens - first));
    load_inner(dp, dp_ld, width, first, rows, inner);
    __syncthreads();
    const int i = 4 * int(blockIdx.y * 256 + threadIdx.x);
    if (i >= width) return;
    float gradients[LORA_ROWS][4];
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row)
        load_quad(dp + (first + min(row, rows - 1)) * dp_ld + i, width - i, vector, gradients[row]);
    add_lora(group, inner, width, first, rows, i, vector, gradients);
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row) {
        if (row >= rows) continue;
        const i64 start = (first + row) * 2 * width + i;
        float gate[4], up[4];
        load_quad(gate_up + start, width - i, vector, gate);
        load_quad(gate_up + start + width, width - i, vector, up);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float share = sigmoid(gate[j]), gradient = gradients[row][j];
            const float d_gate = gradient * up[j] * share * (1.0f + gate[j] * (1.0f - share));
            up[j] = gradient * gate[j] * share;
            gate[j] = d_gate;
        }
        store_quad(d_gate_up + start, width - i, vector, gate);
        store_quad(d_gate_up + start + width, width - i, vector, up);
    }
}
