/* Functions and types that every kernel may use. PETSc's objects are opaque handles and its functions are found at
 * run time, so that the extension builds without PETSc's or MPI's headers and serves whatever build of PETSc the user
 * has. */
#ifndef PENSTOCK_KERNELS_H
#define PENSTOCK_KERNELS_H

/* One function for each generation of x86 processors, picked when the library is loaded: a wheel built on one machine
 * runs on another, at its speed. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif

typedef void *Mat; /* PETSc's handles */
typedef void *Vec;
typedef void *PC;
typedef void *KSP;
typedef void *MatNullSpace;

/* All of PETSc's return 0, or an error code. */
typedef struct {
    int (*MatMult)(Mat A, Vec x, Vec y);
    int (*PCApply)(PC M, Vec x, Vec y);
    int (*KSPGetAndClearConvergenceTest)(KSP method, void **test, void **context, void **destroy);
    int (*KSPSetConvergenceTest)(KSP method, void *test, void *context, void *destroy);
    int (*VecPlaceArray)(Vec x, const double *array);
    int (*VecResetArray)(Vec x);
    int (*MatNullSpaceRemove)(MatNullSpace space, Vec x);
    int (*MatSeqAIJGetArrayRead)(Mat A, const double **values);
    int (*MatSeqAIJRestoreArrayRead)(Mat A, const double **values);
    int (*MatSeqAIJGetCSRAndMemType)(Mat A, const int **starts, const int **columns, double **values, void *type);
    int (*VecGetArrayRead)(Vec x, const double **array);
    int (*VecRestoreArrayRead)(Vec x, const double **array);
    int (*VecGetArrayWrite)(Vec x, double **array);
    int (*VecRestoreArrayWrite)(Vec x, double **array);
    void (*dgemv)(char *trans, int *m, int *n, double *alpha, double *a, int *lda, double *x, int *incx, double *beta,
                  double *y, int *incy);
    void (*dgemm)(char *transa, char *transb, int *m, int *n, int *k, double *alpha, double *a, int *lda, double *b,
                  int *ldb, double *beta, double *c, int *ldc);
} Api;

extern Api api;

/* A and M^-1 on arrays over the local rows: `Handle` of operator.py. */
typedef struct {
    Mat A;
    PC M;
    MatNullSpace nullspace; /* or NULL */
    Vec source, target;
    void (*sum)(double *values, int count); /* over all ranks; NULL on one */
    int num_rows, is_left;                  /* is_left: the operator is M^-1 A, else A M^-1 */
} Operator;

/* y = A x, or y = M^-1 x without the nullspace. Returns PETSc's error code. */
static inline int apply(const Operator *operator, int is_matrix, const double *x, double *y) {
    Vec source = operator->source, target = operator->target;
    int error = api.VecPlaceArray(source, x);
    if (!error) error = api.VecPlaceArray(target, y);
    if (!error) error = is_matrix ? api.MatMult(operator->A, source, target) : api.PCApply(operator->M, source, target);
    if (!error && !is_matrix && operator->nullspace) error = api.MatNullSpaceRemove(operator->nullspace, target);
    api.VecResetArray(source);
    api.VecResetArray(target);
    return error;
}

static inline void sum_over_ranks(const Operator *operator, double *values, int count) {
    if (operator->sum) operator->sum(values, count);
}

#endif
