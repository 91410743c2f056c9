/* The loop of the deflated conjugate gradients, in the letters of cg.py. */
#include <math.h>
#include <string.h>

#include "kernels.h"

#define FIRST_LOOK 4     /* iterations from a start to a look at the error's part in W; the next after half as many */
#define NEGLIGIBLE 0.03  /* energy of that part, against what as many iterations at the present pace take off */
#define MANY 50          /* projections after which every direction is deflated */
#define MISSED 0.25      /* largest part of ||e_l||^2 that the decreases from l on may leave out */
#define WINDOW 1e-4      /* iterations count as the recent past up to where ||e_l||^2 was so small against theirs */
#define ROUNDING 1e-15   /* ||r|| / ||b|| below which there is nothing left to gain */
#define DIVERGED 1e8     /* ||r|| grows by sqrt(cond(A)) at the most while A is positive definite: here it is not */
#define GROWN 3.0        /* ||r|| of 3 times its least value shows an outlying mode, found late */
#define CAUTION 30.0     /* more such modes may come, so the error is then taken to be 30 times larger */
#define STALLED 1000     /* iterations without a new least ||r|| after which there will not be one */

enum { CONVERGED, ITERATION_LIMIT, BREAKDOWN, STAGNATION, NOT_FINITE }; /* in the order of OUTCOMES in cg.py */
enum { NO_CAUSE, GROWTH, INDEFINITE_M, INDEFINITE_A };                  /* of a breakdown, in that of CAUSES */

/* `_State` of cg.py. */
typedef struct {
    const Operator *operator;
    double *W, *AW, *inverse_E;             /* [num_rows, k] twice, [k, k] */
    double *c, *g;                          /* [k] */
    double *x, *r, *p, *q;                  /* [num_rows]; q holds z as well: one is dead while the other lives */
    double *iterates;                       /* [num_rows, max_iterates] x at multiples of `stride` */
    double *decreases, *norms;              /* [limit + 1] alpha_j r_j'z_j; ||r_j|| */
    double norm_b, target_norm;
    double energy;           /* negative where ||r|| alone decides */
    double squared_solution; /* the known part of ||A^-1 b||_A^2 */
    double energy_error;     /* the last estimate, */
    double caution;          /* with this factor */
    int k, deflates_directions, num_projections;
    int iterations, limit, num_iterates, max_iterates, stride;
    int delayed; /* l of the energy estimate */
    int error;   /* PETSc's */
    int cause;
} State;

typedef double eight __attribute__((vector_size(64), aligned(8)));

static double sum_of_ranks(const State *s, double value) {
    sum_over_ranks(s->operator, &value, 1);
    return value;
}

static double sum_of(const eight *x) {
    return (((*x)[0] + (*x)[1]) + ((*x)[2] + (*x)[3])) + (((*x)[4] + (*x)[5]) + ((*x)[6] + (*x)[7]));
}

EVERY_CPU static double dot(int n, const double *x, const double *y) {
    eight a = {0}, b = {0};
    double rest = 0.0;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        a += *(const eight *)(x + i) * *(const eight *)(y + i);
        b += *(const eight *)(x + i + 8) * *(const eight *)(y + i + 8);
    }
    for (; i < n; i++) rest += x[i] * y[i];
    a += b;
    return sum_of(&a) + rest;
}

/* x = x + alpha p, r = r - alpha q; returns r'r. */
EVERY_CPU static double step(int n, double alpha, const double *restrict p, const double *restrict q,
                             double *restrict x, double *restrict r) {
    eight squares = {0};
    double rest = 0.0;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        *(eight *)(x + i) += alpha * *(const eight *)(p + i);
        eight ri = *(eight *)(r + i) - alpha * *(const eight *)(q + i);
        *(eight *)(r + i) = ri;
        squares += ri * ri;
    }
    for (; i < n; i++) {
        x[i] += alpha * p[i];
        r[i] -= alpha * q[i];
        rest += r[i] * r[i];
    }
    return sum_of(&squares) + rest;
}

EVERY_CPU static void new_direction(int n, double beta, const double *restrict z, double *restrict p) {
    for (int i = 0; i < n; i++) p[i] = z[i] + beta * p[i];
}

/* g = X'y, c = E^-1 g. A rank may own no rows: BLAS would leave g as it was. */
static void coefficients(State *s, double *X, double *y) {
    double one = 1.0, zero = 0.0;
    int stride = 1, n = s->operator->num_rows;
    memset(s->g, 0, s->k * sizeof *s->g);
    if (n > 0) api.dgemv("T", &n, &s->k, &one, X, &n, y, &stride, &one, s->g, &stride);
    sum_over_ranks(s->operator, s->g, s->k);
    api.dgemv("N", &s->k, &s->k, &one, s->inverse_E, &s->k, s->g, &stride, &zero, s->c, &stride);
}

/* y = y + factor X c */
static void add(State *s, double factor, double *X, double *y) {
    double one = 1.0;
    int stride = 1, n = s->operator->num_rows;
    if (n > 0) api.dgemv("N", &n, &s->k, &factor, X, &n, s->c, &stride, &one, y, &stride);
}

/* Squared energy norm of the error's part in W, whose coefficients it leaves in c. */
static double energy_in_W(State *s) {
    double energy = 0.0;
    coefficients(s, s->W, s->r);
    for (int j = 0; j < s->k; j++) energy += s->c[j] * s->g[j];
    return energy;
}

/* x = x + W c, r = r - A W c: the error's part in W goes. */
static void project(State *s) {
    s->squared_solution += energy_in_W(s);
    add(s, 1.0, s->W, s->x);
    add(s, -1.0, s->AW, s->r);
    s->deflates_directions |= ++s->num_projections == MANY;
}

/* p = p - W E^-1 (A W)'z */
static void deflate(State *s, double *z) {
    coefficients(s, s->AW, z);
    add(s, -1.0, s->W, s->p);
}

/* Keep x if it is its turn. When the room is used up, every second one goes and the stride doubles. */
static void keep_iterate(State *s) {
    size_t n = s->operator->num_rows, size = n * sizeof(double);
    if (!s->max_iterates || s->iterations % s->stride) return;
    if (s->num_iterates == s->max_iterates) {
        s->num_iterates /= 2;
        s->stride *= 2;
        for (int j = 1; j < s->num_iterates; j++) memcpy(s->iterates + j * n, s->iterates + 2 * j * n, size);
    }
    memcpy(s->iterates + s->num_iterates++ * n, s->x, size);
}

/* The estimated ||x - A^-1 b||_A / ||A^-1 b||_A of the present x, as cg.py derives it. */
static double energy_error(State *s) {
    const double *decreases = s->decreases;
    int last = s->iterations - 1;
    if (s->norms[s->iterations] <= ROUNDING * s->norm_b) return s->energy_error = 0.0;
    if (last < 0) return s->energy_error = 1.0;
    double sum = 0.0, since_l = 0.0, ratio = 1.0;
    for (int i = last; i >= 0; i--) {
        sum += decreases[i];
        if (i == s->delayed) since_l = sum;
        if (i <= s->delayed) {
            ratio = fmax(ratio, sum / decreases[i]);
            if (since_l <= WINDOW * sum) break;
        }
    }
    double latest = ratio * decreases[last];
    while (s->delayed < last && latest <= MISSED * (since_l - decreases[last])) since_l -= decreases[s->delayed++];
    return s->energy_error = s->caution * sqrt(latest / (1.0 - MISSED) / s->squared_solution);
}

static int breakdown(State *s, int cause) {
    s->cause = cause;
    return BREAKDOWN;
}

static int iterate(State *s) {
    int n = s->operator->num_rows, is_start = 1, start = s->iterations, look = FIRST_LOOK, least_at = start;
    double *z = s->q, *q = s->q, rz = 1.0;
    if (s->k) project(s);
    double norm = sqrt(sum_of_ranks(s, dot(n, s->r, s->r))), least = norm;
    double diverged = DIVERGED * fmax(norm, s->norm_b);
    keep_iterate(s);
    while (1) {
        s->norms[s->iterations] = norm;
        if (!isfinite(norm)) return NOT_FINITE;
        if (s->iterations - start > 1 && norm > GROWN * least) s->caution = CAUTION;
        if (s->energy >= 0.0 && energy_error(s) <= s->energy) {
            if (s->k) project(s); /* the estimate knows nothing of this part */
            return CONVERGED;
        }
        if (norm <= s->target_norm) return CONVERGED;
        if (norm > diverged) return breakdown(s, GROWTH);
        if (norm < least || s->iterations == start + 1) { /* the first step may raise it whatever the modes */
            least = norm;
            least_at = s->iterations;
        }
        if (s->iterations - least_at == STALLED) return STAGNATION;
        if (s->iterations == s->limit) return ITERATION_LIMIT;

        if (s->k && !is_start && s->iterations - start == look) {
            if (energy_in_W(s) > NEGLIGIBLE * look * s->decreases[s->iterations - 1]) {
                project(s);
                is_start = 1;
                start = s->iterations;
                look = FIRST_LOOK;
            } else {
                look += look / 2;
            }
        }
        if ((s->error = apply(s->operator, 0, s->r, z))) return BREAKDOWN;
        double old_rz = rz;
        rz = sum_of_ranks(s, dot(n, s->r, z));
        if (!(rz > 0.0)) return isfinite(rz) ? breakdown(s, INDEFINITE_M) : NOT_FINITE;
        if (is_start)
            memcpy(s->p, z, n * sizeof(double));
        else
            new_direction(n, rz / old_rz, z, s->p);
        if (s->k && (is_start || s->deflates_directions)) deflate(s, z);
        is_start = 0;

        if ((s->error = apply(s->operator, 1, s->p, q))) return BREAKDOWN;
        double pq = sum_of_ranks(s, dot(n, s->p, q));
        if (!(pq > 0.0)) return isfinite(pq) ? breakdown(s, INDEFINITE_A) : NOT_FINITE;
        double alpha = rz / pq;
        norm = sqrt(sum_of_ranks(s, step(n, alpha, s->p, q, s->x, s->r)));
        s->decreases[s->iterations++] = alpha * rz;
        s->squared_solution += alpha * rz;
        keep_iterate(s);
    }
}

/* Iterate from x and r = b - A x. Returns an outcome; where `error` is set, that is what counts. */
int cg_iterate(State *s) {
    int outcome = iterate(s);
    if (s->energy < 0.0) energy_error(s);
    return outcome;
}
