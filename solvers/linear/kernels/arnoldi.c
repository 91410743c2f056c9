/* GCRO-DR's loops over the rows, in the letters of gcrodr.py. Matrices are columns of num_rows numbers. */
#include <math.h>
#include <string.h>

#include "kernels.h"

#define DEPENDENT 1e-12 /* a new vector that orthogonalisation shrinks by this factor is dependent on the old ones */
#define BLOCK 512       /* rows at a time: two vectors' worth stays in the first-level cache, 64 columns' in the second */

typedef double four __attribute__((vector_size(32), aligned(8)));

/* z = M^-1 v, w = A z; from the left z = v, w = M^-1 A z. */
static int direct(const Operator *operator, const double *v, double *z, double *between, double *w) {
    if (operator->is_left) memcpy(z, v, operator->num_rows * sizeof *z);
    int error = operator->is_left ? apply(operator, 1, z, between) : apply(operator, 0, v, z);
    if (error) return error;
    return operator->is_left ? apply(operator, 0, between, w) : apply(operator, 1, z, w);
}

static double sum_of(const four *x) {
    const double *lane = (const double *)x;
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

/* dots[0:q] = Q'u, dots[q:2q] = Q'w, dots[2q] = u'u, dots[2q + 1] = u'w, reading Q once. */
EVERY_CPU static void multiply_both(int n, int q, const double *Q, const double *u, const double *w, double *dots) {
    memset(dots, 0, (2 * q + 2) * sizeof *dots);
    for (int start = 0; start < n; start += BLOCK) {
        int size = n - start < BLOCK ? n - start : BLOCK, even = size & ~3;
        const double *u0 = u + start, *w0 = w + start;
        int column = 0;
        for (; column + 4 <= q; column += 4) {
            const double *a = Q + (size_t)column * n + start, *b = a + n, *c = b + n, *d = c + n;
            four au = {0}, bu = {0}, cu = {0}, du = {0}, aw = {0}, bw = {0}, cw = {0}, dw = {0};
            for (int i = 0; i < even; i += 4) {
                four ui = *(const four *)(u0 + i), wi = *(const four *)(w0 + i);
                four ai = *(const four *)(a + i), bi = *(const four *)(b + i);
                four ci = *(const four *)(c + i), di = *(const four *)(d + i);
                au += ai * ui, bu += bi * ui, cu += ci * ui, du += di * ui;
                aw += ai * wi, bw += bi * wi, cw += ci * wi, dw += di * wi;
            }
            double *to_u = dots + column, *to_w = to_u + q;
            to_u[0] += sum_of(&au), to_u[1] += sum_of(&bu), to_u[2] += sum_of(&cu), to_u[3] += sum_of(&du);
            to_w[0] += sum_of(&aw), to_w[1] += sum_of(&bw), to_w[2] += sum_of(&cw), to_w[3] += sum_of(&dw);
            for (int i = even; i < size; i++) {
                to_u[0] += a[i] * u0[i], to_u[1] += b[i] * u0[i], to_u[2] += c[i] * u0[i], to_u[3] += d[i] * u0[i];
                to_w[0] += a[i] * w0[i], to_w[1] += b[i] * w0[i], to_w[2] += c[i] * w0[i], to_w[3] += d[i] * w0[i];
            }
        }
        for (; column <= q; column++) { /* the last one is u itself */
            const double *a = column < q ? Q + (size_t)column * n + start : u0;
            double *to_u = dots + (column < q ? column : 2 * q), *to_w = column < q ? to_u + q : to_u + 1;
            four au = {0}, aw = {0};
            for (int i = 0; i < even; i += 4) {
                four ai = *(const four *)(a + i);
                au += ai * *(const four *)(u0 + i), aw += ai * *(const four *)(w0 + i);
            }
            *to_u += sum_of(&au), *to_w += sum_of(&aw);
            for (int i = even; i < size; i++) *to_u += a[i] * u0[i], *to_w += a[i] * w0[i];
        }
    }
}

/* u = (u - Q s) / length, then w = w - Q g - h u, reading Q once; returns w'w. */
EVERY_CPU static double subtract_both(int n, int q, const double *Q, double *u, double *w, const double *s,
                                      const double *g, double length, double h) {
    double square = 0.0, scale = 1.0 / length;
    for (int start = 0; start < n; start += BLOCK) {
        int size = n - start < BLOCK ? n - start : BLOCK, even = size & ~3;
        double *restrict u0 = u + start, *restrict w0 = w + start;
        int column = 0;
        for (; column + 4 <= q; column += 4) {
            const double *a = Q + (size_t)column * n + start, *b = a + n, *c = b + n, *d = c + n;
            double sa = s[column], sb = s[column + 1], sc = s[column + 2], sd = s[column + 3];
            double ga = g[column], gb = g[column + 1], gc = g[column + 2], gd = g[column + 3];
            for (int i = 0; i < size; i++) {
                u0[i] -= (sa * a[i] + sb * b[i]) + (sc * c[i] + sd * d[i]);
                w0[i] -= (ga * a[i] + gb * b[i]) + (gc * c[i] + gd * d[i]);
            }
        }
        for (; column < q; column++) {
            const double *a = Q + (size_t)column * n + start;
            for (int i = 0; i < size; i++) u0[i] -= s[column] * a[i], w0[i] -= g[column] * a[i];
        }
        four squares = {0};
        for (int i = 0; i < even; i += 4) {
            four ui = *(four *)(u0 + i) * scale, wi = *(four *)(w0 + i) - h * ui;
            *(four *)(u0 + i) = ui, *(four *)(w0 + i) = wi;
            squares += wi * wi;
        }
        square += sum_of(&squares);
        for (int i = even; i < size; i++) {
            u0[i] *= scale, w0[i] -= h * u0[i];
            square += w0[i] * w0[i];
        }
    }
    return square;
}

/* The second orthogonalisation of u, the last column of W [n, q + 1], whose dots with the others are s. */
static void finish(int n, int q, double *W, double *u, double *s, double norm_u) {
    int one = 1;
    double minus = -1.0 / norm_u, scale = 1.0 / norm_u;
    if (n > 0 && q > 0) api.dgemv("N", &n, &q, &minus, W, &n, s, &one, &scale, u, &one);
}

/* Arnoldi steps with (I - C C') K from r / ||r|| in column k of W = [C V], until the least residual over the search
 * space is at most `target` or there were num_steps of them. Returns their number, or minus PETSc's error code.
 *
 * Z gets the directions: M^-1 v, or v itself from the left. R [ld, num_steps + 1], zero on entry, becomes the
 * coefficients in W of r / ||r||, K z_1, K z_2, ...; norms [num_steps] gets the least residuals; between is a scratch
 * column, work holds 2 ld + num_steps + 1 numbers.
 *
 * The estimate: let q be the unit vector with q'H = 0. The least residual over the search space is (||r|| q_1) V q, so
 * its norm is ||r|| |q_1|; q for one more column of H follows from q by one rotation.
 *
 * Gram-Schmidt is classical and done twice, orthogonal to rounding. The second time comes one step late, where it
 * shares both its passes over W with the first time of the next vector (Bielich et al., "Low-synch Gram-Schmidt with
 * delayed reorthogonalization for Krylov solvers", Parallel Computing 112 (2022)), so that twice reads no more memory
 * than once. A direction z thus comes from a v that is still a little off, which is why Z is kept on every side:
 * K Z = W R holds to rounding, and nothing else is asked of Z. (With Z = V taken at its word instead, C and
 * K U drifted apart by 5e-2 over six systems solved to 1e-12.) */
int gcrodr_arnoldi(const Operator *operator, int k, int num_steps, double norm_r, double target, double *W, double *Z,
                   double *between, double *R, int ld, double *norms, double *work, int *is_invariant) {
    int n = operator->num_rows;
    double *dots = work, *left_null = work + 2 * ld;
    double length = 1.0; /* of u before it was scaled to 1 */
    left_null[0] = 1.0;
    *is_invariant = 0;
    for (int step = 0;; step++) {
        int q = k + step, is_last = step == num_steps || (step > 0 && norms[step - 1] <= target);
        double *u = W + (size_t)q * n, *w = is_last ? u : u + n, *z = Z + (size_t)step * n;
        if (!is_last) {
            int error = direct(operator, u, z, between, w);
            if (error) return -error;
        }
        multiply_both(n, q, W, u, w, dots);
        sum_over_ranks(operator, dots, 2 * q + 2);
        double *s = dots, *g = dots + q, *column = R + (size_t)step * ld, *next = column + ld;
        double square = dots[2 * q], h = dots[2 * q + 1], norm_g = 0.0, overlap = 0.0;
        for (int i = 0; i < q; i++) {
            square -= s[i] * s[i];
            h -= s[i] * g[i];
            norm_g = hypot(norm_g, g[i]);
            column[i] += length * s[i];
        }
        *is_invariant = !(square > 0.5 * dots[2 * q]); /* what the first time left of u was rounding */
        double norm_u = *is_invariant ? 0.0 : sqrt(square);
        column[q] = length * norm_u;
        if (*is_invariant) {
            memset(u, 0, n * sizeof *u);
            return step;
        }
        if (is_last) {
            finish(n, q, W, u, s, norm_u);
            return step;
        }
        memcpy(next, g, q * sizeof *g);
        next[q] = h /= norm_u;
        square = subtract_both(n, q, W, u, w, s, g, norm_u, h);
        sum_over_ranks(operator, &square, 1);
        next[q + 1] = length = sqrt(square);
        *is_invariant = !(length > DEPENDENT * hypot(hypot(norm_g, h), length));
        if (*is_invariant) next[q + 1] = length = 0.0;
        double scale = *is_invariant ? 0.0 : 1.0 / length;
        for (int i = 0; i < n; i++) w[i] *= scale;

        for (int i = 0; i <= step; i++) overlap += left_null[i] * next[k + i];
        double rotation = hypot(overlap, length);
        if (rotation > 0) {
            for (int i = 0; i <= step; i++) left_null[i] *= -length / rotation;
            left_null[step + 1] = overlap / rotation;
        }
        norms[step] = norm_r * fabs(left_null[0]);
        if (*is_invariant) return step + 1;
    }
}

/* target = X Y + beta target for rows of X [size, inner] and all of Y [inner, columns]; target [size, columns]. */
static void multiply(int size, int columns, int inner, double *X, int n, double *Y, int ld, double beta,
                     double *target) {
    double one = 1.0;
    if (inner > 0) api.dgemm("N", "N", &size, &columns, &inner, &one, X, &n, Y, &ld, &beta, target, &size);
}

int gcrodr_recombine_size(int new_k) { return 3 * BLOCK * new_k; }

/* The columns C = [C V] Q, U = [U Z] F and T = [T Z] Q of a new space, in the places of the old: W = [C V] [n, num_w],
 * Q [num_w, new_k], F [num_s, new_k], U and T [n, k]; T may be NULL. */
void gcrodr_recombine(int n, int num_w, int num_s, int k, int new_k, double *W, double *U, double *Z, double *T,
                      double *Q, double *F, double *work) {
    double *blocks[] = {W, U, T}, *new[] = {work, work + BLOCK * new_k, work + 2 * BLOCK * new_k};
    for (int start = 0; start < n && new_k > 0; start += BLOCK) {
        int size = n - start < BLOCK ? n - start : BLOCK;
        multiply(size, new_k, num_w, W + start, n, Q, num_w, 0.0, new[0]);
        multiply(size, new_k, k, U + start, n, F, num_s, 0.0, new[1]);
        multiply(size, new_k, num_s - k, Z + start, n, F + k, num_s, k > 0, new[1]);
        if (T) {
            multiply(size, new_k, k, T + start, n, Q, num_w, 0.0, new[2]);
            multiply(size, new_k, num_w - k, Z + start, n, Q + k, num_w, k > 0, new[2]);
        }
        for (int block = 0; block < (T ? 3 : 2); block++)
            for (int column = 0; column < new_k; column++)
                memcpy(blocks[block] + (size_t)column * n + start, new[block] + (size_t)column * size,
                       size * sizeof(double));
    }
}
