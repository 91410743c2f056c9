/* The program's side of penstock's protocol, in C99 or C++. Include it in one file; there is nothing to link.

   int main(void) {
       penstock_open();
       const double *initial = penstock_parameter("initial", N * N);
       double *temperature = penstock_array("temperature", N * N);
       while (penstock_next()) {
           ... solve for *initial, write *temperature ...
           penstock_send(0, time);
       }
   }

   Arrays are of doubles in C order, and stay where they are for the whole life of the program. A name or size that is
   not that of the spec ends the program, and penstock says which. In a program of several MPI ranks, one of them talks
   to penstock. stdout and stderr go to the worker's log. */

#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define PENSTOCK_NAMES 256 /* of parameters and arrays together */
#define PENSTOCK_LINE 512

static struct {
    FILE *reading;
    int writing;
    pid_t pid;
    char *memory;
    char lines[PENSTOCK_NAMES][PENSTOCK_LINE]; /* "array temperature 64 33 33" */
    int num_lines;
    char counts[PENSTOCK_LINE]; /* " points=712 edges=2000" */
    int is_simulating;
    long number; /* of the simulation */
} penstock_;

static inline void penstock_say_(const char *format, ...) {
    char line[2 * PENSTOCK_LINE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (getpid() != penstock_.pid)
        length = snprintf(line, sizeof line, "fault process %d was forked from %d, which alone may speak to penstock",
                          (int)getpid(), (int)penstock_.pid);
    if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
    for (int i = 0; i < length; i++)
        if (line[i] == '\n') line[i] = ' ';
    line[length++] = '\n';
    if (write(penstock_.writing, line, (size_t)length) != length) exit(1); /* penstock is gone */
}

static inline void penstock_fault_(const char *reason, const char *name) {
    penstock_say_("fault %s %s", reason, name);
    exit(1);
}

/* A line from penstock, without its end; returns 0 when there are no more. */
static inline int penstock_hear_(char *line) {
    if (!fgets(line, PENSTOCK_LINE, penstock_.reading)) return 0;
    line[strcspn(line, "\n")] = 0;
    return 1;
}

/* Begin to talk to penstock. */
static inline void penstock_open(void) {
    const char *descriptors = getenv("PENSTOCK_DESCRIPTORS");
    int reading, memory;
    struct stat status;
    char line[PENSTOCK_LINE];
    if (!descriptors || sscanf(descriptors, "%d %d %d", &reading, &penstock_.writing, &memory) != 3) {
        fprintf(stderr, "PENSTOCK_DESCRIPTORS is not set: penstock starts this program, see `problem: external`\n");
        exit(2);
    }
    penstock_.pid = getpid();
    penstock_.reading = fdopen(reading, "r");
    if (!penstock_.reading || fstat(memory, &status)) penstock_fault_("can't open its descriptors", descriptors);
    penstock_.memory = (char *)mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (penstock_.memory == (char *)MAP_FAILED) penstock_fault_("can't map the memory of descriptor", descriptors);
    if (!penstock_hear_(line) || strcmp(line, "penstock 1")) penstock_fault_("this client is of protocol 1, not", line);
    for (penstock_.num_lines = 0; penstock_hear_(line) && strcmp(line, "begin"); penstock_.num_lines++) {
        if (penstock_.num_lines == PENSTOCK_NAMES) penstock_fault_("more names than PENSTOCK_NAMES, with", line);
        strcpy(penstock_.lines[penstock_.num_lines], line);
    }
    penstock_say_("penstock 1");
}

static inline double *penstock_find_(const char *role, const char *name, size_t size) {
    char its_role[16], its_name[PENSTOCK_LINE], reason[2 * PENSTOCK_LINE], known[PENSTOCK_LINE] = "";
    for (int i = 0; i < penstock_.num_lines; i++) {
        long offset;
        int end;
        size_t its_size = 1;
        if (sscanf(penstock_.lines[i], "%15s %511s %ld%n", its_role, its_name, &offset, &end) != 3) continue;
        if (strcmp(its_role, role)) continue;
        if (strcmp(its_name, name)) {
            size_t length = strlen(known); /* of the role's names so far, for a fault */
            snprintf(known + length, sizeof known - length, " %.80s", its_name);
            continue;
        }
        char shape[PENSTOCK_LINE];
        strcpy(shape, penstock_.lines[i] + end);
        for (char *word = strtok(shape, " "); word; word = strtok(NULL, " ")) {
            const char *colon = strchr(word, ':'); /* points:800 is at most 800 */
            its_size *= (size_t)atol(colon ? colon + 1 : word);
        }
        if (its_size != size) {
            const char *its_shape = penstock_.lines[i] + end; /* with a space in front, unless it is a number */
            snprintf(reason, sizeof reason, "the program takes %zu values, and the spec has %zu, of shape [%s], of the %s",
                     size, its_size, its_shape + (*its_shape == ' '), role);
            penstock_fault_(reason, name);
        }
        return (double *)(penstock_.memory + offset);
    }
    snprintf(reason, sizeof reason, "the spec has no %s %.80s; known:%.400s", role, name, known);
    penstock_fault_(reason, "");
    return NULL;
}

/* A parameter of that many values, 1 for a number: what it holds changes with penstock_next. */
static inline const double *penstock_parameter(const char *name, size_t size) {
    return penstock_find_("parameter", name, size);
}

/* An array of the samples, of that many values, 1 for a number; where points vary, of the most.
   penstock_next and penstock_send leave it filled with NaN. */
static inline double *penstock_array(const char *name, size_t size) { return penstock_find_("array", name, size); }

/* Wait for a simulation. Returns 1, with its parameters in place, or 0 when no more are wanted. */
static inline int penstock_next(void) {
    char line[PENSTOCK_LINE];
    int end = 0;
    if (penstock_.is_simulating) penstock_say_("done %ld", penstock_.number);
    penstock_.is_simulating = 0;
    if (!penstock_hear_(line)) return 0;
    if (sscanf(line, "simulate %ld%n", &penstock_.number, &end) != 1 || line[end])
        penstock_fault_("the program waited for a simulation and heard", line);
    return penstock_.is_simulating = 1;
}

static inline void penstock_check_(const char *call) {
    if (!penstock_.is_simulating)
        penstock_fault_("no simulation is under way, as none has begun or it was given up, and the program called",
                        call);
}

/* The number of points, of a geometry's `points`, or of edges, that the next samples have. Their arrays hold rows of that
   length without gaps, as double values[components][num]. */
static inline void penstock_count(const char *name, size_t num) {
    char key[PENSTOCK_LINE], others[PENSTOCK_LINE] = "", counts[PENSTOCK_LINE];
    snprintf(key, sizeof key, "%s=", name);
    strcpy(counts, penstock_.counts);
    for (char *word = strtok(counts, " "); word; word = strtok(NULL, " "))
        if (strncmp(word, key, strlen(key))) strcat(strcat(others, " "), word);
    if (strlen(others) + strlen(key) + 24 > PENSTOCK_LINE) penstock_fault_("too many counts, with", name);
    snprintf(penstock_.counts, sizeof penstock_.counts, "%.400s %.80s%zu", others, key, num);
}

/* Send the sample in the arrays. step: its number, from 0; time: its time, of use where `time` is an input. */
static inline void penstock_send(long step, double time) {
    char line[PENSTOCK_LINE];
    penstock_check_("penstock_send");
    penstock_say_("sample %ld %ld %.17g%s", penstock_.number, step, time, penstock_.counts);
    if (!penstock_hear_(line)) exit(1); /* penstock is gone */
    if (strcmp(line, "taken")) penstock_fault_("the program sent a sample and heard", line);
}

/* Say that the program is alive, where a sample takes longer than `timeout_s`. */
static inline void penstock_beat(void) {
    penstock_check_("penstock_beat");
    penstock_say_("beat");
}

/* Give up this simulation, of which nothing more can be sent; go on with penstock_next. */
static inline void penstock_fail(const char *reason) {
    penstock_check_("penstock_fail");
    penstock_say_("failed %ld %s", penstock_.number, reason);
    penstock_.is_simulating = 0;
}

#endif
