/* The residual of A x = b, row by row: see check.py. Sequential AIJ with indices of 32 bits. */
#include <math.h>
#include <stddef.h>

#include "kernels.h"

/* `_Norms` of check.py. */
typedef struct {
    double b, residual;    /* 2-norms of b and of b - A x */
    double backward_error; /* max |b - A x|_i / (|A||x| + |b| + floor)_i */
} Norms;

typedef struct {
    int num_rows;
    const int *starts, *columns;
    const double *values, *b, *x;
} System;

static double largest_of(int n, const double *y) {
    double largest = 0.0;
    for (int i = 0; i < n; i++) largest = fabs(y[i]) > largest ? fabs(y[i]) : largest;
    return largest;
}

/* b_i, or (b - A x)_i. */
static inline double entry(const System *s, int of_residual, int i) {
    double value = s->b[i];
    for (int k = s->starts[i]; of_residual && k < s->starts[i + 1]; k++) value -= s->values[k] * s->x[s->columns[k]];
    return value;
}

/* ||b||, or ||b - A x||, also where the squares leave the range of numbers. */
static double norm_of(const System *s, int of_residual, double sum_of_squares) {
    if (isnan(sum_of_squares) || (sum_of_squares > 1e-280 && sum_of_squares < 1e280)) return sqrt(sum_of_squares);
    double largest = 0.0, sum = 0.0;
    for (int i = 0; i < s->num_rows; i++) largest = fmax(largest, fabs(entry(s, of_residual, i)));
    if (largest == 0.0 || isinf(largest)) return largest;
    for (int i = 0; i < s->num_rows; i++) {
        double scaled = entry(s, of_residual, i) / largest;
        sum += scaled * scaled;
    }
    return largest * sqrt(sum);
}

/* The floor is `share` times the row's sum of |A|. */
static inline void sweep(const System *s, int has_floor, double share, Norms *norms) {
    double squared_b = 0.0, squared_r = 0.0, worst = 0.0;
    const int *starts = s->starts, *columns = s->columns;
    const double *values = s->values, *x = s->x;
    for (int i = 0; i < s->num_rows; i++) {
        double b = s->b[i], r = b, size = fabs(b), row_sum = 0.0;
        for (int k = starts[i]; k < starts[i + 1]; k++) {
            double product = values[k] * x[columns[k]];
            r -= product;
            size += fabs(product);
            if (has_floor) row_sum += fabs(values[k]);
        }
        if (has_floor) size += share * row_sum;
        squared_b += b * b;
        squared_r += r * r;
        if (fabs(r) > worst * size) worst = fabs(r) / size;
    }
    norms->b = norm_of(s, 0, squared_b);
    norms->residual = norm_of(s, 1, squared_r);
    norms->backward_error = worst;
}

EVERY_CPU static void sweep_without_floor(const System *s, Norms *norms) { sweep(s, 0, 0.0, norms); }

EVERY_CPU static void sweep_with_floor(const System *s, double share, Norms *norms) { sweep(s, 1, share, norms); }

/* ||x|| times the least diagonal entry over the largest row sum, in the maximum norm and absolute values. */
static double share_of(const System *s) {
    double least = INFINITY, largest = 0.0;
    for (int i = 0; i < s->num_rows; i++) {
        double row_sum = 0.0, diagonal = 0.0;
        for (int k = s->starts[i]; k < s->starts[i + 1]; k++) {
            row_sum += fabs(s->values[k]);
            if (s->columns[k] == i) diagonal = fabs(s->values[k]);
        }
        least = fmin(least, diagonal);
        largest = fmax(largest, row_sum);
    }
    return largest > 0.0 ? largest_of(s->num_rows, s->x) * (least / largest) : 0.0;
}

static int open_system(System *s, Mat A, Vec b, Vec x) {
    double *values; /* which need no return */
    int error = api.MatSeqAIJGetCSRAndMemType(A, &s->starts, &s->columns, &values, NULL);
    s->values = values;
    if (!error) error = api.VecGetArrayRead(b, &s->b);
    return error ? error : api.VecGetArrayRead(x, &s->x);
}

static int close_system(System *s, Vec b, Vec x) {
    int error = api.VecRestoreArrayRead(b, &s->b);
    return error ? error : api.VecRestoreArrayRead(x, &s->x);
}

/* The norms, with a floor or none. Returns PETSc's error code. */
int residual_check(Mat A, Vec b, Vec x, int num_rows, int has_floor, Norms *norms) {
    System s = {.num_rows = num_rows};
    int error = open_system(&s, A, b, x);
    if (error) return error;
    if (has_floor)
        sweep_with_floor(&s, share_of(&s), norms);
    else
        sweep_without_floor(&s, norms);
    return close_system(&s, b, x);
}

/* r = b - A x, summed up in extended precision. Returns PETSc's error code. */
int residual_extended(Mat A, Vec b, Vec x, int num_rows, Vec r) {
    System s = {.num_rows = num_rows};
    double *residual;
    int error = open_system(&s, A, b, x);
    if (!error) error = api.VecGetArrayWrite(r, &residual);
    if (error) return error;
    for (int i = 0; i < num_rows; i++) {
        long double sum = s.b[i];
        for (int k = s.starts[i]; k < s.starts[i + 1]; k++) sum -= (long double)s.values[k] * s.x[s.columns[k]];
        residual[i] = (double)sum;
    }
    error = api.VecRestoreArrayWrite(r, &residual);
    return error ? error : close_system(&s, b, x);
}
