//! Matrix products by cuBLASLt, each shape planned once.
//!
//! libtorch's own product asks for a plan at every call, which costs the host 80 microseconds: with hundreds of products
//! a step the device would wait for it. And every algorithm that is new to the process has to be loaded to the device,
//! which costs milliseconds: passes of always new lengths would meet new ones all the time. So algorithms are chosen for
//! rounded lengths. The choice is a function of shapes, so that results are the same from run to run.
#![expect(unsafe_code, reason = "foreign functions")]

use std::{collections::HashMap, ffi::c_void, sync::Mutex};

use cudarc::cublaslt::{result, result::CublasError, sys};
use tch::{Device, Kind, Tensor};

use crate::{Error, launch::enter_device};

/// Memory that a product may use beside its operands: a quarter of what NVIDIA recommends for Hopper, at the same speed.
const WORKSPACE_BYTES: usize = 8 << 20;
/// Plans that are kept; more are made when the lengths of samples vary without end.
const PLANS: usize = 1 << 16;
/// Lengths are rounded up to a multiple of this for the choice of an algorithm, where they are at least as long.
const LENGTH_STEP: u64 = 256;
/// What every row and every address of an operand must be a multiple of.
pub(crate) const ALIGNMENT: u32 = 16;

/// A product `D = alpha op(A) op(B) + beta D` of matrices in columns, as cuBLAS counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Rows of D, columns of D, inner dimension.
    pub(crate) sizes: [u64; 3],
    /// Distances between columns of A, B and D.
    pub(crate) strides: [i64; 3],
    /// Whether A and B are transposed.
    pub(crate) transposed: [bool; 2],
    /// Whether operands are bfloat16 (else float16), and D float32 (else as the operands).
    pub(crate) bfloat16: bool,
    pub(crate) float32_result: bool,
}

/// A planned product. Never freed: shapes come again.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

struct Library {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Shape, Plan>,
    /// By the rounded shape.
    algorithms: HashMap<Shape, sys::cublasLtMatmulAlgo_t>,
    workspace: Tensor,
}

// SAFETY: cuBLASLt's objects may be used from any thread, and a mutex holds them.
unsafe impl Send for Library {}

/// Computes `d = a b`, or adds it to `d`.
///
/// The caller has checked that the tensors are on `device`, of the types and as large as `shape` says, and aligned to
/// [`ALIGNMENT`].
pub(crate) fn multiply(shape: Shape, [a, b, d]: [&Tensor; 3], accumulate: bool, device: Device) -> Result<(), Error> {
    static LIBRARIES: Mutex<Option<HashMap<usize, Library>>> = Mutex::new(None);
    let ordinal = enter_device(device)?;
    let mut libraries = LIBRARIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let libraries = libraries.get_or_insert_default();
    let library = match libraries.get_mut(&ordinal) {
        Some(library) => library,
        None => libraries.entry(ordinal).or_insert(Library::new(device)?),
    };
    let plan = library.plan(shape)?;
    let (alpha, beta) = (1.0_f32, if accumulate { 1.0_f32 } else { 0.0 });
    let [a, b, d] = [a, b, d].map(Tensor::data_ptr);
    let workspace = library.workspace.data_ptr();
    // SAFETY: the plan was made for operands like these, which the caller has checked; alpha and beta are read before the
    // call returns; the workspace is as large as the plan was told, and libtorch's stream orders its uses.
    unsafe {
        result::matmul(
            library.handle,
            plan.description,
            (&raw const alpha).cast(),
            (&raw const beta).cast(),
            a.cast_const(),
            plan.layouts[0],
            b.cast_const(),
            plan.layouts[1],
            d.cast_const(),
            plan.layouts[2],
            d,
            plan.layouts[2],
            &raw const plan.algorithm,
            workspace,
            WORKSPACE_BYTES,
            std::ptr::null_mut(),
        )
    }
    .map_err(failed("cublasLtMatmul"))
}

impl Library {
    fn new(device: Device) -> Result<Self, Error> {
        // SAFETY: only asks the dynamic linker for names; libtorch's CUDA library has brought cuBLASLt with it.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Cublas { call: "dlopen", message: "libcublasLt.so.13 is not installed".to_owned() });
        }
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        let workspace = Tensor::f_empty([WORKSPACE_BYTES as i64], (Kind::Uint8, device))?;
        Ok(Self { handle, plans: HashMap::new(), algorithms: HashMap::new(), workspace })
    }

    fn plan(&mut self, shape: Shape) -> Result<Plan, Error> {
        if let Some(plan) = self.plans.get(&shape) {
            return Ok(*plan);
        }
        let plan = self.make(shape)?;
        if self.plans.len() >= PLANS {
            self.plans.drain().for_each(|(_, plan)| Plan::free(plan.description, plan.layouts));
        }
        self.plans.insert(shape, plan);
        Ok(plan)
    }

    fn make(&mut self, shape: Shape) -> Result<Plan, Error> {
        let (description, layouts) = describe(shape)?;
        let rounded = shape.rounded();
        let algorithm = match self.algorithms.get(&rounded) {
            Some(algorithm) => *algorithm,
            None => {
                let (description, layouts) = describe(rounded)?;
                let chosen = self.choose(description, layouts);
                Plan::free(description, layouts);
                let algorithm = chosen?;
                self.algorithms.insert(rounded, algorithm);
                algorithm
            }
        };
        Ok(Plan { description, layouts, algorithm })
    }

    fn choose(
        &self,
        description: sys::cublasLtMatmulDesc_t,
        [a, b, d]: [sys::cublasLtMatrixLayout_t; 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t, Error> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the value has the type of the attribute, and is copied.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, bytes) }
                .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))
        };
        let workspace = WORKSPACE_BYTES as u64;
        let mut settings = set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, pointer(&workspace), 8);
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            settings = settings.and_then(|()| set(attribute, pointer(&ALIGNMENT), 4));
        }
        let found = settings.and_then(|()| {
            // SAFETY: all objects were just made and are alive.
            unsafe { result::get_matmul_algo_heuristic(self.handle, description, a, b, d, d, preference) }
                .map_err(failed("cublasLtMatmulAlgoGetHeuristic"))
        });
        // SAFETY: nobody uses the preference after this.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        Ok(found?.algo)
    }
}

impl Shape {
    /// The shape that the algorithm is chosen for. What is not a model's own dimension is a number of tokens; which it is
    /// does not matter, since the dimensions of models are multiples of the step, or small.
    fn rounded(self) -> Self {
        let round = |size: u64| if size < LENGTH_STEP { size } else { size.next_multiple_of(LENGTH_STEP) };
        Self { sizes: self.sizes.map(round), ..self }
    }
}

/// The description of a product, and the layouts of A, B and D.
fn describe(shape: Shape) -> Result<(sys::cublasLtMatmulDesc_t, [sys::cublasLtMatrixLayout_t; 3]), Error> {
    let Shape { sizes: [m, n, k], strides, transposed, bfloat16, float32_result } = shape;
    let operand = if bfloat16 { sys::cudaDataType_t::CUDA_R_16BF } else { sys::cudaDataType_t::CUDA_R_16F };
    let float32 = sys::cudaDataType_t::CUDA_R_32F;
    let of_result = if float32_result { float32 } else { operand };
    let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float32);
    let description = description.map_err(failed("cublasLtMatmulDescCreate"))?;
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    for (attribute, transposed) in
        [Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB].into_iter().zip(transposed)
    {
        let value = i32::from(transposed);
        // SAFETY: the attribute is an int32, which is copied.
        unsafe { result::set_matmul_desc_attribute(description, attribute, pointer(&value), size_of::<i32>()) }
            .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
    }
    let layout = |kind, [rows, columns]: [u64; 2], transposed: bool, stride: i64| {
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        // A rounded shape may have longer columns than the real one.
        let stride = stride.max(rows as i64);
        result::create_matrix_layout(kind, rows, columns, stride).map_err(failed("cublasLtMatrixLayoutCreate"))
    };
    let layouts = [
        layout(operand, [m, k], transposed[0], strides[0])?,
        layout(operand, [k, n], transposed[1], strides[1])?,
        layout(of_result, [m, n], false, strides[2])?,
    ];
    Ok((description, layouts))
}

impl Plan {
    fn free(description: sys::cublasLtMatmulDesc_t, layouts: [sys::cublasLtMatrixLayout_t; 3]) {
        for layout in layouts {
            // SAFETY: the caller has the only copy.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        // SAFETY: the same.
        let _ = unsafe { result::destroy_matmul_desc(description) };
    }
}

fn pointer<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

fn failed(call: &'static str) -> impl Fn(CublasError) -> Error {
    move |error| Error::Cublas { call, message: error.to_string() }
}
