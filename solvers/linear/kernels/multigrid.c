/* Geometric multigrid on a regular grid of one to three axes: a symmetric V-cycle in single precision.
 *
 * Grids. A grid has nz x ny x nx points; x runs along a row. A row stores its even points, then its odd points, each
 * half in `half` floats, so that the neighbours of all even (odd) points of a row, its coarse points, and the points
 * between them are contiguous: every inner loop has stride one. POINTS(array, grid, row, xi)[m] is point 2 m + xi.
 * Rows of ghosts lie around the grid and ghosts behind each half; they are zero. Loops run over `length`, a multiple of
 * the vector length that is at least ceil(nx / 2).
 *
 * Stencils. A couples a point with its 3^d neighbourhood. An offset (dz, dy, dx) has the code 9 dz + 3 dy + dx. A is
 * symmetric, so only codes >= 0 are stored: c[code][g] = A[g, g + offset] and A[g, g - offset] = c[code][g - offset].
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { NOT_FINITE = -1, OUT_OF_MEMORY = -2, NO_HIERARCHY = -3 };
enum { Z, Y, X, NUM_AXES };
enum {
    NUM_CODES = 14,
    GUARD = 16,        /* floats before and behind every array, which loops may read */
    VECTOR = 8,        /* `length` is a multiple of it */
    MAX_LEVELS = 40,
    MAX_COARSEST = 32, /* points of the last level */
    WEAKEST = 2        /* axes with a coupling 2 times weaker than the strongest are not halved */
};
static const int AXES[NUM_AXES] = {Y, Z, X}; /* as they are coarsened: rows stay whole until the last */

#define INLINE static inline __attribute__((always_inline))
#define IVDEP _Pragma("GCC ivdep")
#define POINTS(array, grid, row, xi)                                                                                   \
    ((array) + (row) * 2 * (grid)->half + ((xi) & 1) * (grid)->half + ((xi) >> 1))

typedef struct {
    int size[NUM_AXES];
    int is_3d;
    int length; /* of the loops over half a row */
    long half;  /* floats from an even point to the odd one behind it */
    long plane; /* rows from a point to the one above it in z */
    long rows;  /* with those of ghosts */
} Grid;

typedef struct {
    Grid grid;
    unsigned present; /* bit of each code that occurs */
    float *c[NUM_CODES];
} Stencil;

/* A level of the hierarchy and the way to the next. The next level has every second point of the axes that are
 * `halved`; these are coarsened one after another, with interpolation along one axis at a time. */
typedef struct {
    Stencil A;
    float *inverse_diagonal, *x, *b;
    int halved[NUM_AXES];
    Stencil coarsened[NUM_AXES];           /* A once an axis is; the last one is the next level's */
    float *low[NUM_AXES], *high[NUM_AXES]; /* weights of the coarse points on both sides of a point between them */
    float *residual, *residual_z;          /* or correction; coarsened along y, and along y and z */
} Level;

typedef struct {
    int num_levels, num_points;
    Level levels[MAX_LEVELS];
    double factor[MAX_COARSEST][MAX_COARSEST]; /* Cholesky factor of the coarsest A; inverse pivots on the diagonal */
    const int *dof_of_point;                   /* points in the order of storage */
    double scale;                              /* stencils are scale x A */
    float *finest;                             /* the finest stencil and `rows` */
    float *rows[3];                            /* room for a row each */
    float *memory;                             /* all else: first what depends on A, then `vectors` */
    float *vectors;
    size_t num_floats;                         /* of `vectors` */
} Multigrid;

INLINE long row_of(const Grid *grid, int z, int y) { return (z + grid->is_3d) * grid->plane + y + 1; }

static Grid grid_of(const int size[NUM_AXES], int is_3d) {
    Grid grid = {.size = {size[Z], size[Y], size[X]}, .is_3d = is_3d};
    grid.length = ((size[X] + 1) / 2 + VECTOR - 1) / VECTOR * VECTOR;
    grid.half = grid.length + VECTOR;
    grid.plane = size[Y] + 2;
    grid.rows = (size[Z] + 2 * is_3d) * grid.plane;
    return grid;
}

static long floats_of(const Grid *grid) { return grid->rows * 2 * grid->half + 2 * GUARD; }

static int num_codes_of(const Grid *grid) { return grid->is_3d ? 14 : 5; }

/* ---- Smoothing: Gauss-Seidel row after row, even points before odd ones; upwards from zero, downwards after ---- */

/* Sums over the couplings of point m of half p with other points: of rows before, of the same row, of rows after. */
#define AFTER(code, dr, dx) POINTS(c[code], grid, row, p)[m] * POINTS(x, grid, row + (dr), p + (dx))[m]
#define BEFORE(code, dr, dx)                                                                                           \
    POINTS(c[code], grid, row - (dr), p - (dx))[m] * POINTS(x, grid, row - (dr), p - (dx))[m]
#define DEFINE_OTHER_ROWS(name, TERM)                                                                                  \
    INLINE float name(const Grid *grid, float *const *c, const float *x, long row, int p, int is_3d, int is_box,       \
                      int m) {                                                                                         \
        const long plane = grid->plane;                                                                                \
        float sum = TERM(3, 1, 0);                                                                                     \
        if (is_box) sum += TERM(2, 1, -1) + TERM(4, 1, 1);                                                             \
        if (is_3d) sum += TERM(9, plane, 0);                                                                           \
        if (is_3d && is_box)                                                                                           \
            sum += TERM(5, plane - 1, -1) + TERM(6, plane - 1, 0) + TERM(7, plane - 1, 1) + TERM(8, plane, -1) +       \
                   TERM(10, plane, 1) + TERM(11, plane + 1, -1) + TERM(12, plane + 1, 0) + TERM(13, plane + 1, 1);     \
        return sum;                                                                                                    \
    }
DEFINE_OTHER_ROWS(before, BEFORE)
DEFINE_OTHER_ROWS(after, AFTER)
INLINE float beside(const Grid *grid, float *const *c, const float *x, long row, int p, int m) {
    return BEFORE(1, 0, 1) + AFTER(1, 0, 1);
}

INLINE void relax(const Level *level, long row, int p, int is_3d, int is_box, int is_upwards) {
    const Grid *grid = &level->A.grid;
    float *const *c = level->A.c;
    const float *b = POINTS(level->b, grid, row, p), *inverse = POINTS(level->inverse_diagonal, grid, row, p);
    const float *x = level->x;
    float *out = POINTS(level->x, grid, row, p);
    IVDEP for (int m = 0; m < grid->length; m++) {
        float rest = b[m] - before(grid, c, x, row, p, is_3d, is_box, m);
        if (p == 1 || !is_upwards) rest -= beside(grid, c, x, row, p, m);
        if (!is_upwards) rest -= after(grid, c, x, row, p, is_3d, is_box, m);
        out[m] = inverse[m] * rest;
    }
}

/* After the sweep upwards: what lies before, the diagonal and (for odd points) the row itself have cancelled b. */
INLINE void residual(const Level *level, long row, int p, float *out, int is_3d, int is_box) {
    const Grid *grid = &level->A.grid;
    float *const *c = level->A.c;
    const float *x = level->x;
    IVDEP for (int m = 0; m < grid->length; m++) {
        float sum = after(grid, c, x, row, p, is_3d, is_box, m);
        if (p == 0) sum += beside(grid, c, x, row, p, m);
        out[m] = -sum;
    }
}

/* Rows are worked on in slabs, the smallest sets of rows that couple with the slabs beside them alone: rows, or planes
 * in 3D. One pass over memory smooths a slab and forms the residual of the one before, coarsened along y. */
INLINE void descend(const Level *level, float *r, const int is_3d, const int is_box) {
    const Grid *grid = &level->A.grid, *coarse = &level->coarsened[Y].grid;
    const int num_slabs = is_3d ? grid->size[Z] : grid->size[Y], num_rows = is_3d ? grid->size[Y] : 1;
    const long width = 2 * grid->half;
    for (int slab = 0; slab <= num_slabs; slab++) {
        for (int i = 0; i < num_rows && slab < num_slabs; i++) {
            const long row = is_3d ? row_of(grid, slab, i) : row_of(grid, 0, slab);
            relax(level, row, 0, is_3d, is_box, 1);
            relax(level, row, 1, is_3d, is_box, 1);
        }
        for (int i = 0; i < num_rows && slab > 0; i++) {
            const int z = is_3d ? slab - 1 : 0, y = is_3d ? i : slab - 1;
            const long row = row_of(grid, z, y);
            float *t = level->residual + row_of(coarse, z, level->halved[Y] ? y / 2 : y) * width;
            float *out = level->halved[Y] && y > 0 ? r : t;
            residual(level, row, 0, out, is_3d, is_box);
            residual(level, row, 1, out + grid->half, is_3d, is_box);
            if (out == t) continue;
            if (y % 2 == 0) {
                IVDEP for (int m = 0; m < width; m++) t[m] += r[m];
            } else {
                const float *low = level->low[Y] + row * width, *high = level->high[Y] + row * width;
                float *next = t + width; /* past the last row, ghosts get zeros */
                IVDEP for (int m = 0; m < width; m++) {
                    t[m] += low[m] * r[m];
                    next[m] = high[m] * r[m];
                }
            }
        }
    }
}

/* Adds the correction, which is coarse along y, and smooths downwards: the adjoint of `descend`. */
INLINE void ascend(const Level *level, const float *correction, const int is_3d, const int is_box) {
    const Grid *grid = &level->A.grid, *coarse = &level->coarsened[Y].grid;
    const int num_slabs = is_3d ? grid->size[Z] : grid->size[Y], num_rows = is_3d ? grid->size[Y] : 1;
    const long width = 2 * grid->half;
    for (int slab = num_slabs; slab >= 0; slab--) {
        for (int i = 0; i < num_rows && slab > 0; i++) {
            const int z = is_3d ? slab - 1 : 0, y = is_3d ? i : slab - 1;
            const long row = row_of(grid, z, y);
            const float *t = correction + row_of(coarse, z, level->halved[Y] ? y / 2 : y) * width;
            float *x = level->x + row * width;
            if (level->halved[Y] && y % 2) {
                const float *low = level->low[Y] + row * width, *high = level->high[Y] + row * width;
                const float *next = t + width;
                IVDEP for (int m = 0; m < width; m++) x[m] += low[m] * t[m] + high[m] * next[m];
            } else {
                IVDEP for (int m = 0; m < width; m++) x[m] += t[m];
            }
        }
        for (int i = num_rows - 1; i >= 0 && slab < num_slabs; i--) {
            const long row = is_3d ? row_of(grid, slab, i) : row_of(grid, 0, slab);
            relax(level, row, 1, is_3d, is_box, 0);
            relax(level, row, 0, is_3d, is_box, 0);
        }
    }
}

EVERY_CPU static void descend_star_2d(const Level *level, float *r) { descend(level, r, 0, 0); }
EVERY_CPU static void descend_box_2d(const Level *level, float *r) { descend(level, r, 0, 1); }
EVERY_CPU static void descend_star_3d(const Level *level, float *r) { descend(level, r, 1, 0); }
EVERY_CPU static void descend_box_3d(const Level *level, float *r) { descend(level, r, 1, 1); }
EVERY_CPU static void ascend_star_2d(const Level *level, const float *t) { ascend(level, t, 0, 0); }
EVERY_CPU static void ascend_box_2d(const Level *level, const float *t) { ascend(level, t, 0, 1); }
EVERY_CPU static void ascend_star_3d(const Level *level, const float *t) { ascend(level, t, 1, 0); }
EVERY_CPU static void ascend_box_3d(const Level *level, const float *t) { ascend(level, t, 1, 1); }

/* By `kind_of` a stencil. */
static void (*const DESCEND[])(const Level *, float *) = {descend_star_2d, descend_box_2d, descend_star_3d,
                                                          descend_box_3d};
static void (*const ASCEND[])(const Level *, const float *) = {ascend_star_2d, ascend_box_2d, ascend_star_3d,
                                                               ascend_box_3d};

static int kind_of(const Stencil *A) {
    const unsigned star = 1u | 1u << 1 | 1u << 3 | 1u << 9;
    return 2 * A->grid.is_3d + ((A->present & ~star) != 0);
}

/* ---- Between grids ---- */

/* A row in natural order <-> its halves. */
INLINE void split(const float *row, float *halves, const Grid *grid) {
    float *even = halves, *odd = halves + grid->half;
    for (int m = 0; m < grid->length; m++) {
        even[m] = row[2 * m];
        odd[m] = row[2 * m + 1];
    }
}
INLINE void join(const float *halves, float *row, const Grid *grid) {
    const float *even = halves, *odd = halves + grid->half;
    for (int m = 0; m < grid->length; m++) {
        row[2 * m] = even[m];
        row[2 * m + 1] = odd[m];
    }
}

EVERY_CPU static void restrict_z(const Level *level, const float *source, float *target) {
    const Grid *fine = &level->coarsened[Y].grid, *coarse = &level->coarsened[Z].grid;
    const long width = 2 * fine->half, above = fine->plane * width;
    for (int z = 0; z < coarse->size[Z]; z++)
        for (int y = 0; y < coarse->size[Y]; y++) {
            const long at = row_of(fine, 2 * z, y) * width;
            const float *r = source + at, *low = level->low[Z] + at + above, *high = level->high[Z] + at - above;
            float *t = target + row_of(coarse, z, y) * width;
            IVDEP for (int m = 0; m < width; m++) t[m] = r[m] + low[m] * r[m + above] + high[m] * r[m - above];
        }
}

EVERY_CPU static void interpolate_z(const Level *level, const float *source, float *target) {
    const Grid *fine = &level->coarsened[Y].grid, *coarse = &level->coarsened[Z].grid;
    const long width = 2 * fine->half;
    for (int z = 0; z < fine->size[Z]; z++)
        for (int y = 0; y < fine->size[Y]; y++) {
            const long at = row_of(fine, z, y) * width;
            const float *s = source + row_of(coarse, z / 2, y) * width, *next = s + coarse->plane * width;
            const float *low = level->low[Z] + at, *high = level->high[Z] + at;
            float *t = target + at;
            if (z % 2)
                IVDEP for (int m = 0; m < width; m++) t[m] = low[m] * s[m] + high[m] * next[m];
            else
                memcpy(t, s, width * sizeof(float));
        }
}

EVERY_CPU static void restrict_x(const Level *level, const float *source, float *target, float *natural) {
    const Grid *fine = &level->coarsened[Z].grid, *coarse = &level->coarsened[X].grid;
    memset(natural + fine->length, 0, 2 * VECTOR * sizeof(float));
    for (int z = 0; z < fine->size[Z]; z++)
        for (int y = 0; y < fine->size[Y]; y++) {
            const long row = row_of(fine, z, y);
            const float *even = POINTS(source, fine, row, 0), *odd = POINTS(source, fine, row, 1);
            const float *low = POINTS(level->low[X], fine, row, 1), *high = POINTS(level->high[X], fine, row, 1);
            IVDEP for (int m = 0; m < fine->length; m++)
                natural[m] = even[m] + low[m] * odd[m] + high[m - 1] * odd[m - 1];
            split(natural, POINTS(target, coarse, row, 0), coarse);
        }
}

EVERY_CPU static void interpolate_x(const Level *level, const float *source, float *target, float *natural) {
    const Grid *fine = &level->coarsened[Z].grid, *coarse = &level->coarsened[X].grid;
    for (int z = 0; z < fine->size[Z]; z++)
        for (int y = 0; y < fine->size[Y]; y++) {
            const long row = row_of(fine, z, y);
            float *even = POINTS(target, fine, row, 0), *odd = POINTS(target, fine, row, 1);
            const float *low = POINTS(level->low[X], fine, row, 1), *high = POINTS(level->high[X], fine, row, 1);
            join(POINTS(source, coarse, row, 0), natural, coarse);
            IVDEP for (int m = 0; m < fine->length; m++) {
                even[m] = natural[m];
                odd[m] = low[m] * natural[m] + high[m] * natural[m + 1];
            }
        }
}

/* ---- Set-up ---- */

INLINE int component(int code, int axis) { /* of the offset with this code */
    const int dz = (code + 13) / 9 - 1, dy = (code + 13) / 3 % 3 - 1, dx = (code + 13) % 3 - 1;
    return axis == Z ? dz : axis == Y ? dy : dx;
}

/* A[g, g + offset] for the points g of (row, xi); NULL where it is zero. */
INLINE const float *couplings(const Stencil *A, int code, long row, int xi) {
    const Grid *grid = &A->grid;
    if (!(A->present >> abs(code) & 1)) return NULL;
    if (code >= 0) return POINTS(A->c[code], grid, row, xi);
    row += component(code, Z) * grid->plane + component(code, Y);
    return POINTS(A->c[-code], grid, row, xi + component(code, X));
}

/* Interpolation along an axis from A itself: the sums of A's couplings across the axis make a one-dimensional stencil
 * -l, l + h + e, -h (J. E. Dendy, "Black box multigrid", J. Comput. Phys. 48 (1982) 366-386). e is the sum of a row of
 * A, and counts only where l or h is zero, at a boundary on the axis. Elsewhere it is a reaction, or a Dirichlet
 * condition across the axis; with it, values beside such a boundary would be interpolated as if they fell off along it,
 * and Poisson's equation took 11 iterations and not 8. */
EVERY_CPU static void weights(const Stencil *A, int axis, float *low, float *high, float *rows[3]) {
    const Grid *grid = &A->grid;
    const long width = 2 * grid->half, first = row_of(grid, 0, 0);
    const int length = grid->length;
    for (int p = axis == X; p < 2; p++) {
        const float *terms[2 * NUM_CODES]; /* of l, of the middle, of h; at the first row */
        int num_terms = 0, ends[3];
        for (int side = -1; side <= 1; side++) {
            for (int code = 1 - NUM_CODES; code < NUM_CODES; code++) {
                const float *term = component(code, axis) == side ? couplings(A, code, first, p) : NULL;
                if (term != NULL) terms[num_terms++] = term;
            }
            ends[side + 1] = num_terms;
        }
        for (int z = axis == Z; z < grid->size[Z]; z += 1 + (axis == Z))
            for (int y = axis == Y; y < grid->size[Y]; y += 1 + (axis == Y)) {
                const long at = (z * grid->plane + y) * width;
                for (int i = 0, side = 0; side < 3; side++) {
                    float *restrict sum = rows[side];
                    memset(sum, 0, length * sizeof(float));
                    for (; i < ends[side]; i++) {
                        const float *term = terms[i] + at;
                        for (int m = 0; m < length; m++) sum[m] += term[m];
                    }
                }
                const float *restrict l = rows[0], *restrict across = rows[1], *restrict h = rows[2];
                float *restrict to_low = POINTS(low, grid, first, p) + at;
                float *restrict to_high = POINTS(high, grid, first, p) + at;
                for (int m = 0; m < length; m++) {
                    const float lower = fmaxf(-l[m], 0.0f), higher = fmaxf(-h[m], 0.0f);
                    const float e = lower == 0.0f || higher == 0.0f ? fmaxf(across[m] + l[m] + h[m], 0.0f) : 0.0f;
                    const float factor = 1.0f / (lower + higher + e + FLT_MIN);
                    to_low[m] = lower * factor;
                    to_high[m] = higher * factor;
                }
            }
    }
}

typedef struct {
    const float *u, *c, *v; /* u c v, where u or v NULL stands for 1 */
} Term;

INLINE void add_terms(float *restrict sum, const Term *terms, int num_terms, long at, int length) {
    memset(sum, 0, length * sizeof(float));
    for (int i = 0; i < num_terms; i++) {
        const float *c = terms[i].c + at;
        const float *u = terms[i].u ? terms[i].u + at : NULL, *v = terms[i].v ? terms[i].v + at : NULL;
        if (u && v)
            for (int m = 0; m < length; m++) sum[m] += u[m] * c[m] * v[m];
        else if (u)
            for (int m = 0; m < length; m++) sum[m] += u[m] * c[m];
        else if (v)
            for (int m = 0; m < length; m++) sum[m] += c[m] * v[m];
        else
            for (int m = 0; m < length; m++) sum[m] += c[m];
    }
}

/* coarse = P^T fine P, P the interpolation along one axis. A coarse point's column of P has the entries high, 1, low at
 * the fine points at -1, 0, 1 from it along the axis. */
EVERY_CPU static void galerkin(const Stencil *fine, Stencil *coarse, int axis, const float *low, const float *high,
                               float *natural) {
    const Grid *from = &fine->grid, *to = &coarse->grid;
    const long width = 2 * from->half, first = row_of(from, 0, 0);
    const long up = axis == Z ? from->plane : axis == Y ? 1 : 0; /* rows to the next fine point along the axis */
    const int along_x = axis == X;
    coarse->present = 0;
    if (along_x) memset(natural + from->length, 0, 2 * VECTOR * sizeof(float));
    for (int code = 0; code < num_codes_of(to); code++) {
        const int d = component(code, axis), stride = axis == Z ? 9 : axis == Y ? 3 : 1;
        const long across = component(code, Z) * from->plane + component(code, Y) - d * up;
        for (int p = 0; p < 2 - along_x; p++) {
            /* Pairs of coupled fine points: at a from the coarse point, at b from its neighbour. */
            Term terms[9];
            int num_terms = 0;
            for (int a = -1; a <= 1; a++)
                for (int b = -1; b <= 1; b++) {
                    const int step = 2 * d + b - a;
                    const long g = first + a * up, h = g + across + step * up;
                    const int xi = along_x ? a : p, eta = xi + (along_x ? step : component(code, X));
                    const float *c = abs(step) > 1 ? NULL : couplings(fine, code + (step - d) * stride, g, xi);
                    if (c == NULL) continue;
                    const float *u = a ? POINTS(a < 0 ? high : low, from, g, xi) : NULL;
                    const float *v = b ? POINTS(b < 0 ? high : low, from, h, eta) : NULL;
                    terms[num_terms++] = (Term){u, c, v};
                }
            if (num_terms == 0) continue;
            coarse->present |= 1u << code;
            for (int z = 0; z < to->size[Z]; z++)
                for (int y = 0; y < to->size[Y]; y++) {
                    const long at = ((axis == Z ? 2 * z : z) * from->plane + (axis == Y ? 2 * y : y)) * width;
                    float *out = POINTS(coarse->c[code], to, row_of(to, z, y), p);
                    add_terms(along_x ? natural : out, terms, num_terms, at, from->length);
                    if (along_x) split(natural, out, to);
                }
        }
    }
}

EVERY_CPU static void invert(const float *diagonal, float *inverse, long count) {
    for (long i = 0; i < count; i++) inverse[i] = diagonal[i] > 0.0f ? 1.0f / diagonal[i] : 0.0f;
}

/* Cholesky of the coarsest A. A vanishing pivot (pure Neumann conditions) fixes its unknown at zero. */
static void factorise(Multigrid *multigrid) {
    const Stencil *A = &multigrid->levels[multigrid->num_levels - 1].A;
    const int nz = A->grid.size[Z], ny = A->grid.size[Y], nx = A->grid.size[X], n = nz * ny * nx;
    double(*L)[MAX_COARSEST] = multigrid->factor;
    memset(multigrid->factor, 0, sizeof multigrid->factor);
    for (int i = 0; i < n; i++) {
        const int z = i / (ny * nx), y = i / nx % ny, x = i % nx;
        for (int code = 1 - NUM_CODES; code <= 0; code++) {
            const float *c = couplings(A, code, row_of(&A->grid, z, y), x);
            const int j = i + (component(code, Z) * ny + component(code, Y)) * nx + component(code, X);
            if (c != NULL && c[0] != 0.0f && j >= 0) L[i][j] = c[0];
        }
    }
    for (int j = 0; j < n; j++) {
        double pivot = L[j][j];
        for (int k = 0; k < j; k++) pivot -= L[j][k] * L[j][k];
        const double inverse = pivot > 1e-5 * L[j][j] ? 1.0 / sqrt(pivot) : 0.0;
        L[j][j] = inverse;
        for (int i = j + 1; i < n; i++) {
            for (int k = 0; k < j; k++) L[i][j] -= L[i][k] * L[j][k];
            L[i][j] *= inverse;
        }
    }
}

static void solve_coarsest(const Multigrid *multigrid) {
    const Level *level = &multigrid->levels[multigrid->num_levels - 1];
    const Grid *grid = &level->A.grid;
    const int ny = grid->size[Y], nx = grid->size[X], n = grid->size[Z] * ny * nx;
    const double(*L)[MAX_COARSEST] = multigrid->factor;
    double y[MAX_COARSEST];
    for (int i = 0; i < n; i++) {
        double sum = POINTS(level->b, grid, row_of(grid, i / (ny * nx), i / nx % ny), i % nx)[0];
        for (int k = 0; k < i; k++) sum -= L[i][k] * y[k];
        y[i] = sum * L[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        y[i] *= L[i][i];
        for (int k = 0; k < i; k++) y[k] -= L[i][k] * y[i];
        POINTS(level->x, grid, row_of(grid, i / (ny * nx), i / nx % ny), i % nx)[0] = (float)y[i];
    }
}

/* ---- Memory ---- */

typedef struct {
    float *memory; /* or NULL, while its size is being found */
    size_t used;
} Arena;

static float *carve(Arena *arena, const Grid *grid) { /* zeros, one for every point */
    float *array = arena->memory ? arena->memory + arena->used + GUARD : NULL;
    arena->used += floats_of(grid);
    return array;
}

static void carve_stencil(Arena *arena, Stencil *A, const Grid *grid) {
    A->grid = *grid;
    for (int code = 0; code < num_codes_of(grid); code++) A->c[code] = carve(arena, grid);
}

/* Levels until at most MAX_COARSEST points are left. Only axes with strong coupling are halved, for Gauss-Seidel
 * smooths along these alone; halving an axis divides its strength by 4. Returns 0 or NO_HIERARCHY. */
static int plan(Multigrid *multigrid, const double strengths[NUM_AXES]) {
    /* Positive couplings, as of mass matrices, make no smooth error: such an axis comes last. */
    double strength[NUM_AXES] = {fmax(strengths[Z], 0.0), fmax(strengths[Y], 0.0), fmax(strengths[X], 0.0)};
    Grid grid = multigrid->levels[0].A.grid;
    int num_levels = 1;
    multigrid->num_levels = 0;
    while (grid.size[Z] * grid.size[Y] * grid.size[X] > MAX_COARSEST) {
        if (num_levels == MAX_LEVELS) return NO_HIERARCHY;
        Level *level = &multigrid->levels[num_levels++ - 1];
        double strongest = 0.0;
        for (int axis = 0; axis < NUM_AXES; axis++)
            if (grid.size[axis] > 2) strongest = fmax(strongest, strength[axis]);
        for (int axis = 0; axis < NUM_AXES; axis++) {
            level->halved[axis] = grid.size[axis] > 2 && WEAKEST * strength[axis] >= strongest;
            if (!level->halved[axis]) continue;
            grid.size[axis] = (grid.size[axis] + 1) / 2;
            strength[axis] /= 4.0;
        }
        grid = grid_of(grid.size, grid.is_3d);
    }
    multigrid->num_levels = num_levels;
    return 0;
}

/* Gives the levels their arrays. */
static void lay_out(Multigrid *multigrid, Arena *arena) {
    for (int l = 0; l < multigrid->num_levels; l++) {
        Level *level = &multigrid->levels[l];
        const Grid *grid = &level->A.grid;
        level->inverse_diagonal = carve(arena, grid);
        if (l == multigrid->num_levels - 1) continue;
        Stencil *last = &level->A;
        for (int i = 0; i < NUM_AXES; i++) {
            const int axis = AXES[i];
            Stencil *coarse = &level->coarsened[axis];
            if (level->halved[axis]) {
                int size[NUM_AXES] = {last->grid.size[Z], last->grid.size[Y], last->grid.size[X]};
                size[axis] = (size[axis] + 1) / 2;
                const Grid coarse_grid = grid_of(size, last->grid.is_3d);
                level->low[axis] = carve(arena, &last->grid);
                level->high[axis] = carve(arena, &last->grid);
                carve_stencil(arena, coarse, &coarse_grid);
            } else
                *coarse = *last;
            last = coarse;
        }
        multigrid->levels[l + 1].A = *last;
    }
    const size_t matrices = arena->used;
    for (int l = 0; l < multigrid->num_levels; l++) {
        Level *level = &multigrid->levels[l];
        level->x = carve(arena, &level->A.grid);
        level->b = carve(arena, &level->A.grid);
    }
    for (int l = 0; l + 1 < multigrid->num_levels; l++) {
        Level *level = &multigrid->levels[l], *coarse = level + 1;
        level->residual = level->halved[Z] || level->halved[X] ? carve(arena, &level->coarsened[Y].grid) : coarse->b;
        level->residual_z = !level->halved[Z]  ? level->residual
                            : level->halved[X] ? carve(arena, &level->coarsened[Z].grid)
                                               : coarse->b;
    }
    multigrid->vectors = arena->memory + matrices;
    multigrid->num_floats = arena->used - matrices;
}

void multigrid_destroy(Multigrid *multigrid) {
    if (multigrid == NULL) return;
    free(multigrid->memory);
    free(multigrid->finest);
    free(multigrid);
}

/* size: nz, ny, nx, 1 for axes that are not there. dof_of_point is kept: points row by row, in each row first the even,
 * then the odd ones. Returns NULL without memory. */
Multigrid *multigrid_create(const int size[NUM_AXES], const int *dof_of_point) {
    const Grid grid = grid_of(size, size[Z] > 1);
    const size_t row = 4 * grid.half + 2 * GUARD;
    Multigrid *multigrid = calloc(1, sizeof *multigrid);
    if (multigrid == NULL) return NULL;
    multigrid->num_points = size[Z] * size[Y] * size[X];
    multigrid->dof_of_point = dof_of_point;
    multigrid->finest = calloc(num_codes_of(&grid) * floats_of(&grid) + 3 * row, sizeof(float));
    if (multigrid->finest == NULL) {
        free(multigrid);
        return NULL;
    }
    Arena arena = {multigrid->finest, 0};
    carve_stencil(&arena, &multigrid->levels[0].A, &grid);
    for (int i = 0; i < 3; i++) multigrid->rows[i] = arena.memory + arena.used + GUARD + i * row;
    return multigrid;
}

/* Takes the finest stencil from the values of a CSR matrix. positions[i * num_points + point] is the place of the
 * point's coupling with codes[i], -1 where there is none; codes[0] = 0. Adds up each code's couplings, and their
 * absolute values. */
EVERY_CPU static void extract(Multigrid *multigrid, const double *values, const int *positions, const int *codes,
                              int num_codes, double sums[NUM_CODES], double magnitudes[NUM_CODES]) {
    const Stencil *A = &multigrid->levels[0].A;
    const Grid *grid = &A->grid;
    const double scale = multigrid->scale;
    for (int z = 0; z < grid->size[Z]; z++)
        for (int y = 0; y < grid->size[Y]; y++)
            for (int p = 0; p < 2; p++) {
                const int count = (grid->size[X] + 1 - p) / 2;
                for (int i = 0; i < num_codes; i++) {
                    const int *places = positions + (long)i * multigrid->num_points;
                    float *restrict out = POINTS(A->c[codes[i]], grid, row_of(grid, z, y), p);
                    double sum = 0.0, magnitude = 0.0;
                    for (int m = 0; m < count; m++) {
                        const double value = places[m] < 0 ? 0.0 : scale * values[places[m]];
                        out[m] = (float)value;
                        sum += value;
                        magnitude += fabs(value);
                    }
                    sums[codes[i]] += sum;
                    magnitudes[codes[i]] += magnitude;
                }
                positions += count;
            }
}

/* Builds the hierarchy for a matrix; for the other arguments see `extract`. Returns 0, NOT_FINITE, OUT_OF_MEMORY,
 * NO_HIERARCHY or PETSc's error. */
int multigrid_set_up(Multigrid *multigrid, Mat matrix, const int *positions, const int *codes, int num_codes) {
    Level *levels = multigrid->levels;
    Stencil *A = &levels[0].A;
    const double *values;
    int error = api.MatSeqAIJGetArrayRead(matrix, &values);
    if (error) return error;
    const int middle = positions[multigrid->num_points / 2];
    const double typical = middle < 0 ? 0.0 : fabs(values[middle]);
    multigrid->scale = typical > 0.0 && isfinite(typical) ? ldexp(1.0, -ilogb(typical)) : 1.0;
    double sums[NUM_CODES] = {0.0}, magnitudes[NUM_CODES] = {0.0}, strengths[NUM_AXES] = {0.0};
    extract(multigrid, values, positions, codes, num_codes, sums, magnitudes);
    error = api.MatSeqAIJRestoreArrayRead(matrix, &values);
    if (error) return error;
    A->present = 0;
    for (int code = 0; code < NUM_CODES; code++) {
        if (!isfinite(magnitudes[code])) return NOT_FINITE;
        /* P1 elements on squares cut in two leave rounding errors in the diagonal couplings. */
        if (magnitudes[code] > 1e-14 * magnitudes[0]) A->present |= 1u << code;
        for (int axis = 0; axis < NUM_AXES; axis++)
            if (component(code, axis)) strengths[axis] -= sums[code];
    }
    int old[MAX_LEVELS][NUM_AXES];
    const int old_num_levels = multigrid->num_levels;
    for (int l = 0; l < old_num_levels; l++) memcpy(old[l], levels[l].halved, sizeof old[l]);
    error = plan(multigrid, strengths);
    if (error) return error;
    int is_new = multigrid->num_levels != old_num_levels;
    for (int l = 0; l + 1 < multigrid->num_levels && !is_new; l++)
        is_new = memcmp(old[l], levels[l].halved, sizeof old[l]) != 0;
    if (is_new) {
        Arena size = {NULL, 0};
        lay_out(multigrid, &size);
        free(multigrid->memory);
        Arena arena = {multigrid->memory = calloc(size.used, sizeof(float)), 0};
        if (arena.memory == NULL) {
            multigrid->num_levels = 0;
            return OUT_OF_MEMORY;
        }
        lay_out(multigrid, &arena);
    }
    for (int l = 0; l < multigrid->num_levels; l++) {
        Level *level = &levels[l];
        invert(level->A.c[0] - GUARD, level->inverse_diagonal - GUARD, floats_of(&level->A.grid));
        if (l == multigrid->num_levels - 1) break;
        const Stencil *last = &level->A;
        for (int i = 0; i < NUM_AXES; i++) {
            const int axis = AXES[i];
            if (level->halved[axis]) {
                weights(last, axis, level->low[axis], level->high[axis], multigrid->rows);
                galerkin(last, &level->coarsened[axis], axis, level->low[axis], level->high[axis], multigrid->rows[0]);
            } else
                level->coarsened[axis] = *last;
            last = &level->coarsened[axis];
        }
        levels[l + 1].A = *last;
    }
    factorise(multigrid);
    return 0;
}

/* ---- Application ---- */

static void v_cycle(Multigrid *multigrid) {
    Level *levels = multigrid->levels;
    const int last = multigrid->num_levels - 1;
    for (int l = 0; l < last; l++) {
        Level *level = &levels[l];
        DESCEND[kind_of(&level->A)](level, multigrid->rows[0]);
        if (level->halved[Z]) restrict_z(level, level->residual, level->residual_z);
        if (level->halved[X]) restrict_x(level, level->residual_z, level[1].b, multigrid->rows[0]);
    }
    solve_coarsest(multigrid);
    for (int l = last - 1; l >= 0; l--) {
        Level *level = &levels[l];
        const float *correction = level[1].x;
        if (level->halved[X]) {
            interpolate_x(level, correction, level->residual_z, multigrid->rows[0]);
            correction = level->residual_z;
        }
        if (level->halved[Z]) {
            interpolate_z(level, correction, level->residual);
            correction = level->residual;
        }
        ASCEND[kind_of(&level->A)](level, correction);
    }
}

EVERY_CPU static double largest_of(const double *values, int count) {
    double largest = 0.0;
    for (int i = 0; i < count; i++) largest = fabs(values[i]) > largest ? fabs(values[i]) : largest;
    return largest;
}

EVERY_CPU static int are_finite(const double *values, int count) {
    double sum = 0.0;
    for (int i = 0; i < count; i++) sum += 0.0 * values[i];
    return sum == 0.0;
}

EVERY_CPU static void gather(const double *values, const int *dofs, const Grid *grid, double factor, float *halves) {
    for (int z = 0; z < grid->size[Z]; z++)
        for (int y = 0; y < grid->size[Y]; y++)
            for (int p = 0; p < 2; p++) {
                const int count = (grid->size[X] + 1 - p) / 2;
                float *out = POINTS(halves, grid, row_of(grid, z, y), p);
                for (int m = 0; m < count; m++) out[m] = (float)(factor * values[dofs[m]]);
                dofs += count;
            }
}

EVERY_CPU static void scatter(const float *halves, const int *dofs, const Grid *grid, double factor, double *values) {
    for (int z = 0; z < grid->size[Z]; z++)
        for (int y = 0; y < grid->size[Y]; y++)
            for (int p = 0; p < 2; p++) {
                const int count = (grid->size[X] + 1 - p) / 2;
                const float *in = POINTS(halves, grid, row_of(grid, z, y), p);
                for (int m = 0; m < count; m++) values[dofs[m]] = factor * in[m];
                dofs += count;
            }
}

/* x = M^-1 b, one V-cycle. Returns 0, NO_HIERARCHY where the last set-up left none, or PETSc's error. */
int multigrid_apply(Multigrid *multigrid, Vec b_vec, Vec x_vec) {
    const double *b;
    double *x;
    if (multigrid->num_levels == 0) return NO_HIERARCHY;
    int error = api.VecGetArrayRead(b_vec, &b);
    if (!error) error = api.VecGetArrayWrite(x_vec, &x);
    if (error) return error;
    Level *finest = &multigrid->levels[0];
    const Grid *grid = &finest->A.grid;
    /* The largest value becomes about 1: in single precision a small b would vanish. */
    const double largest = largest_of(b, multigrid->num_points);
    const double factor = largest > 0.0 && isfinite(largest) ? ldexp(1.0, -ilogb(largest)) : 1.0;
    gather(b, multigrid->dof_of_point, grid, factor, finest->b);
    v_cycle(multigrid);
    scatter(finest->x, multigrid->dof_of_point, grid, multigrid->scale / factor, x);
    if (!are_finite(x, multigrid->num_points)) { /* ghosts must not keep a NaN */
        memset(multigrid->vectors, 0, multigrid->num_floats * sizeof(float));
        for (int i = 0; i < 3; i++) memset(multigrid->rows[i], 0, 4 * grid->half * sizeof(float));
    }
    error = api.VecRestoreArrayRead(b_vec, &b);
    return error ? error : api.VecRestoreArrayWrite(x_vec, &x);
}
