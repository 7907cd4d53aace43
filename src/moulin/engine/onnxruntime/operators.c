/* Operators of the domain `moulin` for ONNX Runtime on a CPU, each one pass over its tensors.

   Swoosh(x, bias?): with z = x + bias, the bias along the last axis,
       y = log(1 + exp(z)) - slope z - constant
   float32, any shape, in place where ONNX Runtime allows it. The exponential and the logarithm are polynomials, each
   within 1.5e-7 of the function.

   ONNX Runtime's C interface is a table of functions that only ever grows, so its few members that are needed here are
   told by their places in it (version 18, ONNX Runtime 1.18). */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { API_VERSION = 18 };

typedef void *const *Api;
typedef void *Status; /* NULL where all is well */

typedef struct {
    Api (*get_api)(uint32_t version);
} ApiBase;

#define CREATE_STATUS(api) ((Status(*)(int, const char *))(api)[0])
#define CREATE_DOMAIN(api) ((Status(*)(const char *, void **))(api)[26])
#define ADD_TO_DOMAIN(api) ((Status(*)(void *, const void *))(api)[27])
#define ADD_DOMAIN(api) ((Status(*)(void *, void *))(api)[28])
#define TENSOR_DATA(api) ((Status(*)(const void *, void **))(api)[51])
#define NUM_DIMENSIONS(api) ((Status(*)(const void *, size_t *))(api)[61])
#define DIMENSIONS(api) ((Status(*)(const void *, int64_t *, size_t))(api)[62])
#define NUM_ELEMENTS(api) ((Status(*)(const void *, size_t *))(api)[64])
#define TYPE_AND_SHAPE(api) ((Status(*)(const void *, void **))(api)[65])
#define FLOAT_ATTRIBUTE(api) ((Status(*)(const void *, const char *, float *))(api)[85])
#define INPUT(api) ((Status(*)(const void *, size_t, const void **))(api)[90])
#define OUTPUT(api) ((Status(*)(void *, size_t, const int64_t *, size_t, void **))(api)[91])
#define RELEASE_TYPE_AND_SHAPE(api) ((void (*)(void *))(api)[99])
#define PARALLEL_FOR(api) ((Status(*)(const void *, void (*)(void *, size_t), size_t, size_t, void *))(api)[274])

#define RETURN_IF_FAILED(call)             \
    do {                                   \
        Status status_ = (call);           \
        if (status_ != NULL) return status_; \
    } while (0)

enum { FLOAT_TENSOR = 1, OPTIONAL = 1, INVALID_ARGUMENT = 2, MAX_DIMENSIONS = 8, BLOCK = 16384 /* elements of a task */ };

static Api api;

typedef struct {
    int64_t dimensions[MAX_DIMENSIONS];
    size_t num_dimensions, size;
} Shape;

static Status shape_of(const void *tensor, Shape *shape) {
    void *info;
    RETURN_IF_FAILED(TYPE_AND_SHAPE(api)(tensor, &info));
    Status status = NUM_DIMENSIONS(api)(info, &shape->num_dimensions);
    if (status == NULL && shape->num_dimensions > MAX_DIMENSIONS)
        status = CREATE_STATUS(api)(INVALID_ARGUMENT, "expected at most 8 axes");
    if (status == NULL) status = DIMENSIONS(api)(info, shape->dimensions, shape->num_dimensions);
    if (status == NULL) status = NUM_ELEMENTS(api)(info, &shape->size);
    RELEASE_TYPE_AND_SHAPE(api)(info);
    return status;
}

/* --- Swoosh ------------------------------------------------------------------------------------------------------ */

static inline __attribute__((always_inline)) float swoosh_of(float z, float slope, float constant) {
    /* exp(-|z|) = 2^whole 2^part: adding 1.5 * 2^23 rounds to a whole number, in the lowest bits. */
    const float magnitude = z < 0.0f ? -z : z;
    const float exponent = (magnitude < 80.0f ? magnitude : 80.0f) * -1.44269504f;
    const float rounded = exponent + 12582912.0f;
    const float part = exponent - (rounded - 12582912.0f);
    float power = 0.00134004322f;
    power = power * part + 0.0096760371f;
    power = power * part + 0.0555032721f;
    power = power * part + 0.240221074f;
    power = power * part + 0.693147207f;
    power = power * part + 1.00000008f;
    uint32_t whole, bits;
    memcpy(&whole, &rounded, sizeof whole);
    memcpy(&bits, &power, sizeof bits);
    bits += whole << 23;
    memcpy(&power, &bits, sizeof power);
    /* log(1 + power), 0 <= power <= 1 */
    float curve = -0.00857467618f;
    curve = curve * power + 0.0442141922f;
    curve = curve * power - 0.107853679f;
    curve = curve * power + 0.17757024f;
    curve = curve * power - 0.244996117f;
    curve = curve * power + 0.332761766f;
    curve = curve * power - 0.499974494f;
    curve = curve * power + 0.99999981f;
    return (z > 0.0f ? 1.0f - slope : -slope) * z - constant + curve * power;
}

/* `rows` rows of `width` elements; `y` may be `x`. */
static void swoosh_rows(const float *x, const float *bias, float *y, size_t rows, size_t width, float slope,
                        float constant) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        if (bias == NULL) {
#pragma GCC ivdep
            for (size_t i = 0; i < width; i++) y[i] = swoosh_of(x[i], slope, constant);
        } else {
#pragma GCC ivdep
            for (size_t i = 0; i < width; i++) y[i] = swoosh_of(x[i] + bias[i], slope, constant);
        }
    }
}

typedef struct {
    float slope, constant;
} Swoosh;

typedef struct {
    const Swoosh *swoosh;
    const float *x, *bias;
    float *y;
    size_t rows, width, rows_of_task;
} SwooshCall;

static void swoosh_task(void *user, size_t task) {
    const SwooshCall *call = user;
    const size_t first = task * call->rows_of_task, left = call->rows - first;
    const size_t rows = left < call->rows_of_task ? left : call->rows_of_task;
    const size_t offset = first * call->width;
    swoosh_rows(call->x + offset, call->bias, call->y + offset, rows, call->width, call->swoosh->slope,
                call->swoosh->constant);
}

static Status swoosh_compute(void *kernel, void *context) {
    const void *x, *bias;
    void *y;
    Shape shape, bias_shape;
    SwooshCall call = {.swoosh = kernel};
    RETURN_IF_FAILED(INPUT(api)(context, 0, &x));
    RETURN_IF_FAILED(INPUT(api)(context, 1, &bias));
    RETURN_IF_FAILED(shape_of(x, &shape));
    RETURN_IF_FAILED(OUTPUT(api)(context, 0, shape.dimensions, shape.num_dimensions, &y));
    if (shape.size == 0) return NULL;
    RETURN_IF_FAILED(TENSOR_DATA(api)(x, (void **)&call.x));
    RETURN_IF_FAILED(TENSOR_DATA(api)(y, (void **)&call.y));
    call.width = shape.size < BLOCK ? shape.size : BLOCK;
    if (bias != NULL) {
        RETURN_IF_FAILED(shape_of(bias, &bias_shape));
        call.width = bias_shape.size;
        if (shape.num_dimensions == 0 || call.width != (size_t)shape.dimensions[shape.num_dimensions - 1])
            return CREATE_STATUS(api)(INVALID_ARGUMENT, "Swoosh expects a bias for each element of the last axis");
        RETURN_IF_FAILED(TENSOR_DATA(api)(bias, (void **)&call.bias));
    }
    call.rows = shape.size / call.width;
    call.rows_of_task = call.width < BLOCK ? BLOCK / call.width : 1;
    const size_t tasks = (call.rows + call.rows_of_task - 1) / call.rows_of_task;
    RETURN_IF_FAILED(PARALLEL_FOR(api)(context, swoosh_task, tasks, 0, &call));
    /* Without a bias the last block may be shorter. */
    const size_t done = call.rows * call.width;
    swoosh_rows(call.x + done, NULL, call.y + done, 1, shape.size - done, call.swoosh->slope, call.swoosh->constant);
    return NULL;
}

static Status swoosh_create(const void *operator, Api table, const void *info, void **kernel) {
    (void)operator, (void)table;
    Swoosh *swoosh = calloc(1, sizeof *swoosh);
    Status status = FLOAT_ATTRIBUTE(api)(info, "slope", &swoosh->slope);
    if (status == NULL) status = FLOAT_ATTRIBUTE(api)(info, "constant", &swoosh->constant);
    if (status != NULL) free(swoosh);
    *kernel = swoosh;
    return status;
}

static const char *swoosh_name(const void *operator) {
    (void)operator;
    return "Swoosh";
}

static size_t two(const void *operator) {
    (void)operator;
    return 2;
}

static int second_is_optional(const void *operator, size_t index) {
    (void)operator;
    return index == 1 ? OPTIONAL : 0;
}

/* --- what operators have in common ------------------------------------------------------------------------------- */

static size_t one(const void *operator) {
    (void)operator;
    return 1;
}

static int zero(const void *operator) {
    (void)operator;
    return 0;
}

static int whole_numbers_from_one(const void *operator) {
    (void)operator;
    return 1;
}

static int up_to_any(const void *operator) {
    (void)operator;
    return INT32_MAX;
}

static int float_tensor(const void *operator, size_t index) {
    (void)operator, (void)index;
    return FLOAT_TENSOR;
}

static int required(const void *operator, size_t index) {
    (void)operator, (void)index;
    return 0;
}

static const char *on_cpu(const void *operator) {
    (void)operator;
    return NULL;
}

static size_t output_over_first(int **input, int **output) {
    *input = calloc(1, sizeof(int));
    *output = calloc(1, sizeof(int));
    return 1;
}

static void release_output_over_first(int *input, int *output) {
    free(input);
    free(output);
}

/* ONNX Runtime's description of an operator, by the order of its members. */
static const struct {
    uint32_t version;
    void *create_without_status;
    const char *(*name)(const void *);
    const char *(*provider)(const void *);
    int (*input_type)(const void *, size_t);
    size_t (*num_inputs)(const void *);
    int (*output_type)(const void *, size_t);
    size_t (*num_outputs)(const void *);
    void *compute_without_status;
    void (*destroy)(void *);
    int (*input_presence)(const void *, size_t);
    int (*output_presence)(const void *, size_t);
    int (*input_memory)(const void *, size_t);
    int (*least_variadic_inputs)(const void *);
    int (*variadic_inputs_alike)(const void *);
    int (*least_variadic_outputs)(const void *);
    int (*variadic_outputs_alike)(const void *);
    Status (*create)(const void *, Api, const void *, void **);
    Status (*compute)(void *, void *);
    void *infer_shape;
    int (*first_version)(const void *);
    int (*last_version)(const void *);
    size_t (*may_be_in_place)(int **, int **);
    void (*release_in_place)(int *, int *);
    void *alias, *release_alias;
} swoosh = {
    .version = API_VERSION,
    .name = swoosh_name,
    .provider = on_cpu,
    .input_type = float_tensor,
    .num_inputs = two,
    .output_type = float_tensor,
    .num_outputs = one,
    .destroy = free,
    .input_presence = second_is_optional,
    .output_presence = required,
    .input_memory = required,
    .least_variadic_inputs = zero,
    .variadic_inputs_alike = zero,
    .least_variadic_outputs = zero,
    .variadic_outputs_alike = zero,
    .create = swoosh_create,
    .compute = swoosh_compute,
    .first_version = whole_numbers_from_one,
    .last_version = up_to_any,
    .may_be_in_place = output_over_first,
    .release_in_place = release_output_over_first,
};

/* What ONNX Runtime calls when the library is registered with the options of a session. */
Status RegisterCustomOps(void *session_options, const ApiBase *base) {
    static void *domain;
    if (domain == NULL) {
        void *made;
        api = base->get_api(API_VERSION);
        RETURN_IF_FAILED(CREATE_DOMAIN(api)("moulin", &made));
        RETURN_IF_FAILED(ADD_TO_DOMAIN(api)(made, &swoosh));
        domain = made;
    }
    return ADD_DOMAIN(api)(session_options, domain);
}
