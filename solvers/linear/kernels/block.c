/* Eight right-hand sides at once by a kept Cholesky factor: see block_factor.py. Indices of 32 bits.
 *
 * A block is [row][side], so that each entry of the factor is read once for all sides, which are the lanes of a vector
 * register. Lanes never mix: a side has the same bits in any block, and one that is not finite spoils no other. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels.h"

#define SIDES 8

/* `_Factor` of block_factor.py. P A P^T = L D L^T with unit lower triangular L, whose diagonal is not stored; `order`
 * is P. Both ways of storing L are there, because to gather takes two thirds of the time that to scatter takes. */
typedef struct {
    int num_rows;
    const int *order;
    const int *row_starts, *columns;
    const double *row_values;
    const int *column_starts, *rows;
    const double *column_values;
    const double *inverse_pivots; /* 1 / D */
} Factor;

/* `_BlockNorms` of block_factor.py: the sums of squares of b and of b - A x, and max |b - A x|_i / (|A||x| + |b|)_i. */
typedef struct {
    double squared_b[SIDES], squared_residual[SIDES], backward_error[SIDES];
} Norms;

/* x_i -= sum of values[k] x_places[k] over k = begin, ..., end - 1. */
static inline void subtract(double *x_i, const double *x, int begin, int end, const int *places, const double *values) {
    double sums[SIDES];
    for (int s = 0; s < SIDES; s++) sums[s] = x_i[s];
    for (int k = begin; k < end; k++) {
        const double *other = x + (size_t)places[k] * SIDES;
        double value = values[k];
        for (int s = 0; s < SIDES; s++) sums[s] -= value * other[s];
    }
    for (int s = 0; s < SIDES; s++) x_i[s] = sums[s];
}

EVERY_CPU static void substitute(const Factor *f, double *x) {
    for (int i = 0; i < f->num_rows; i++)
        subtract(x + (size_t)i * SIDES, x, f->row_starts[i], f->row_starts[i + 1], f->columns, f->row_values);
    for (int i = f->num_rows - 1; i >= 0; i--) {
        double *x_i = x + (size_t)i * SIDES;
        for (int s = 0; s < SIDES; s++) x_i[s] *= f->inverse_pivots[i];
        subtract(x_i, x, f->column_starts[i], f->column_starts[i + 1], f->rows, f->column_values);
    }
}

EVERY_CPU static void check(int num_rows, const int *starts, const int *columns, const double *values, const double *b,
                            const double *x, Norms *norms) {
    double squared_b[SIDES] = {0}, squared_residual[SIDES] = {0}, worst[SIDES] = {0};
    for (int i = 0; i < num_rows; i++) {
        const double *b_i = b + (size_t)i * SIDES;
        double residual[SIDES], size[SIDES];
        for (int s = 0; s < SIDES; s++) {
            residual[s] = b_i[s];
            size[s] = fabs(b_i[s]);
        }
        for (int k = starts[i]; k < starts[i + 1]; k++) {
            const double *x_j = x + (size_t)columns[k] * SIDES;
            for (int s = 0; s < SIDES; s++) {
                double product = values[k] * x_j[s];
                residual[s] -= product;
                size[s] += fabs(product);
            }
        }
        for (int s = 0; s < SIDES; s++) {
            double ratio = fabs(residual[s]) / (size[s] > 0.0 ? size[s] : 1.0);
            squared_b[s] += b_i[s] * b_i[s];
            squared_residual[s] += residual[s] * residual[s];
            worst[s] = ratio > worst[s] ? ratio : worst[s];
        }
    }
    memcpy(norms->squared_b, squared_b, sizeof squared_b);
    memcpy(norms->squared_residual, squared_residual, sizeof squared_residual);
    memcpy(norms->backward_error, worst, sizeof worst);
}

/* Solves A x = b for `num` <= 8 pairs of vectors, and checks every x with A. `work` holds 3 x 8 x num_rows numbers.
 * Returns PETSc's error code. */
int block_solve(const Factor *f, Mat A, int num, const Vec *b, const Vec *x, double *work, Norms *norms) {
    size_t n = f->num_rows;
    double *right = work, *ordered = work + n * SIDES, *solution = work + 2 * n * SIDES;
    if (num < SIDES) memset(right, 0, n * SIDES * sizeof *right);
    for (int s = 0; s < num; s++) {
        const double *values;
        int error = api.VecGetArrayRead(b[s], &values);
        if (error) return error;
        for (size_t i = 0; i < n; i++) right[i * SIDES + s] = values[i];
        error = api.VecRestoreArrayRead(b[s], &values);
        if (error) return error;
    }
    for (size_t i = 0; i < n; i++)
        memcpy(ordered + i * SIDES, right + (size_t)f->order[i] * SIDES, SIDES * sizeof *right);
    substitute(f, ordered);
    for (size_t i = 0; i < n; i++)
        memcpy(solution + (size_t)f->order[i] * SIDES, ordered + i * SIDES, SIDES * sizeof *right);
    for (int s = 0; s < num; s++) {
        double *values;
        int error = api.VecGetArrayWrite(x[s], &values);
        if (error) return error;
        for (size_t i = 0; i < n; i++) values[i] = solution[i * SIDES + s];
        error = api.VecRestoreArrayWrite(x[s], &values);
        if (error) return error;
    }
    const int *starts, *columns;
    double *values; /* which need no return */
    int error = api.MatSeqAIJGetCSRAndMemType(A, &starts, &columns, &values, NULL);
    if (!error) check(f->num_rows, starts, columns, values, right, solution, norms);
    return error;
}
