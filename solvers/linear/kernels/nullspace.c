/* Whether a matrix takes constants to zero: see nullspace.py. Sequential AIJ with indices of 32 bits. */
#include <math.h>
#include <stddef.h>

#include "kernels.h"

/* |sum of A_i| <= bound x (sum of |A_i|) in every row i; ends at the first row where it is not. -1 where PETSc fails. */
int nullspace_has_constants(Mat A, int num_rows, double bound) {
    const int *starts, *columns;
    double *values; /* which need no return */
    if (api.MatSeqAIJGetCSRAndMemType(A, &starts, &columns, &values, NULL)) return -1;
    for (int i = 0; i < num_rows; i++) {
        double sum = 0.0, size = 0.0;
        for (int k = starts[i]; k < starts[i + 1]; k++) {
            sum += values[k];
            size += fabs(values[k]);
        }
        if (!(fabs(sum) <= bound * size)) return 0;
    }
    return num_rows > 0;
}
