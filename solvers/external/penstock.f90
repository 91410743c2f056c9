! The program's side of penstock's protocol, in Fortran 2008.
!
!     use penstock
!     real(8), pointer :: initial(:), temperature(:)
!     call penstock_open()
!     initial => penstock_parameter("initial", n * n)
!     temperature => penstock_array("temperature", n * n)
!     do while (penstock_next())
!         ... solve for initial, write temperature ...
!         call penstock_send(0, time)
!     end do
!
! Arrays lie in C order: temperature(i * n + j + 1) is at x_i, y_j. As u(n, n) it is u(j + 1, i + 1). They stay where
! they are for the whole life of the program. A name or size that is not that of the spec ends the program, and penstock
! says which. In a program of several MPI ranks, one of them talks to penstock. What is printed goes to the worker's log.
module penstock
    use, intrinsic :: iso_c_binding
    use, intrinsic :: iso_fortran_env, only: error_unit
    implicit none
    private
    public :: penstock_open, penstock_parameter, penstock_array, penstock_next, penstock_count, penstock_send, &
              penstock_beat, penstock_fail

    integer, parameter :: max_names = 256, max_line = 512
    integer(c_int) :: reading, writing, pid
    type(c_ptr) :: memory = c_null_ptr
    character(max_line) :: lines(max_names), counts = ""
    integer :: num_lines = 0
    logical :: is_simulating = .false.
    character(24) :: number = ""  ! of the simulation

    interface
        function posix_read(descriptor, buffer, size) bind(c, name="read") result(num)
            import
            integer(c_int), value :: descriptor
            character(kind=c_char), intent(out) :: buffer(*)
            integer(c_size_t), value :: size
            integer(c_size_t) :: num
        end function
        function posix_write(descriptor, buffer, size) bind(c, name="write") result(num)
            import
            integer(c_int), value :: descriptor
            character(kind=c_char), intent(in) :: buffer(*)
            integer(c_size_t), value :: size
            integer(c_size_t) :: num
        end function
        function posix_mmap(address, size, protection, flags, descriptor, offset) bind(c, name="mmap") result(mapped)
            import
            type(c_ptr), value :: address
            integer(c_size_t), value :: size
            integer(c_int), value :: protection, flags, descriptor
            integer(c_long), value :: offset
            type(c_ptr) :: mapped
        end function
        function posix_lseek(descriptor, offset, whence) bind(c, name="lseek") result(place)
            import
            integer(c_int), value :: descriptor, whence
            integer(c_long), value :: offset
            integer(c_long) :: place
        end function
        function posix_getpid() bind(c, name="getpid") result(id)
            import
            integer(c_int) :: id
        end function
        subroutine posix_exit(status) bind(c, name="exit")  ! `error stop` would print a backtrace
            import
            integer(c_int), value :: status
        end subroutine
    end interface

contains

    ! Begin to talk to penstock.
    subroutine penstock_open()
        integer(c_int), parameter :: read_write = 3, map_shared = 1, to_end = 2  ! on Linux
        character(max_line) :: descriptors, line
        integer :: status
        integer(c_int) :: descriptor
        call get_environment_variable("PENSTOCK_DESCRIPTORS", descriptors, status=status)
        if (status == 0) read (descriptors, *, iostat=status) reading, writing, descriptor
        if (status /= 0) then
            write (error_unit, "(a)") &
                "PENSTOCK_DESCRIPTORS is not set: penstock starts this program, see `problem: external`"
            call posix_exit(2_c_int)
        end if
        pid = posix_getpid()
        memory = posix_mmap(c_null_ptr, int(posix_lseek(descriptor, 0_c_long, to_end), c_size_t), read_write, &
                            map_shared, descriptor, 0_c_long)
        if (transfer(memory, 0_c_intptr_t) == -1) call fault("can't map the memory of descriptors " // trim(descriptors))
        if (.not. hear(line)) line = "nothing"
        if (line /= "penstock 1") call fault("this client is of protocol 1, not " // trim(line))
        do while (hear(line))
            if (line == "begin") exit
            if (num_lines == max_names) call fault("there are more names than max_names")
            num_lines = num_lines + 1
            lines(num_lines) = line
        end do
        call say("penstock 1")
    end subroutine

    ! A parameter of that many values, 1 for a number: what it holds changes with penstock_next.
    function penstock_parameter(name, size) result(values)
        character(*), intent(in) :: name
        integer, intent(in) :: size
        real(c_double), pointer :: values(:)
        values => find("parameter", name, size)
    end function

    ! An array of the samples, of that many values, 1 for a number; where points vary, of the most.
    ! penstock_next and penstock_send leave it filled with NaN.
    function penstock_array(name, size) result(values)
        character(*), intent(in) :: name
        integer, intent(in) :: size
        real(c_double), pointer :: values(:)
        values => find("array", name, size)
    end function

    ! Wait for a simulation. .true. with its parameters in place, .false. when no more are wanted.
    function penstock_next() result(is_wanted)
        logical :: is_wanted
        character(max_line) :: line
        if (is_simulating) call say("done " // trim(number))
        is_simulating = .false.
        is_wanted = hear(line)
        if (.not. is_wanted) return
        number = line(10:33)
        if (line /= "simulate " // number .or. number == "" .or. verify(trim(number), "0123456789") > 0) &
            call fault("the program waited for a simulation and heard " // trim(line))
        is_simulating = .true.
    end function

    ! The number of points, of a geometry's `points`, or of edges, that the next samples have. Their arrays hold rows of
    ! that length without gaps, as values(num, components).
    subroutine penstock_count(name, num)
        character(*), intent(in) :: name
        integer, intent(in) :: num
        integer :: start, length
        character(12) :: digits
        start = index(counts, " " // name // "=")
        if (start > 0) then
            length = scan(counts(start + 1:) // " ", " ")
            counts = counts(:start - 1) // counts(start + length:)
        end if
        write (digits, "(i0)") num
        if (len_trim(counts) + len(name) + 14 > max_line) call fault("too many counts, with " // name)
        counts = trim(counts) // " " // name // "=" // trim(digits)
    end subroutine

    ! Send the sample in the arrays. step: its number, from 0; time: its time, of use where `time` is an input.
    subroutine penstock_send(step, time)
        integer, intent(in) :: step
        real(c_double), intent(in) :: time
        character(40) :: numbers
        character(max_line) :: line
        call check("penstock_send")
        write (numbers, "(i0, 1x, es25.17e3)") step, time
        call say("sample " // trim(number) // " " // trim(numbers) // trim(counts))
        if (.not. hear(line)) call posix_exit(1_c_int)  ! penstock is gone
        if (line /= "taken") call fault("the program sent a sample and heard " // trim(line))
    end subroutine

    ! Say that the program is alive, where a sample takes longer than `timeout_s`.
    subroutine penstock_beat()
        call check("penstock_beat")
        call say("beat")
    end subroutine

    ! Give up this simulation, of which nothing more can be sent; go on with penstock_next.
    subroutine penstock_fail(reason)
        character(*), intent(in) :: reason
        call check("penstock_fail")
        call say("failed " // trim(number) // " " // reason)
        is_simulating = .false.
    end subroutine

    subroutine check(name)
        character(*), intent(in) :: name
        if (.not. is_simulating) &
            call fault("no simulation is under way, as none has begun or it was given up, and the program called " // name)
    end subroutine

    function find(role, name, size) result(values)
        character(*), intent(in) :: role, name
        integer, intent(in) :: size
        real(c_double), pointer :: values(:), all_of_it(:)
        integer :: i, its_size, at, length
        integer(c_long) :: offset
        character(max_line) :: line, shape
        character(:), allocatable :: known  ! the names of the role so far, for a fault
        character(80) :: numbers
        known = ""
        do i = 1, num_lines
            line = lines(i)
            if (index(line, role // " ") /= 1) cycle
            line = line(len(role) + 2:)
            length = index(line, " ")
            if (line(:length) /= name) then
                known = known // " " // line(:length - 1)
                cycle
            end if
            line = line(length + 1:)
            length = index(line, " ")
            read (line(:length), *) offset
            line = line(length + 1:)
            shape = line
            its_size = 1
            do while (line /= "")
                length = index(line, " ")
                read (line(index(line(:length), ":") + 1:length), *) at  ! points:800 is at most 800
                its_size = its_size * at
                line = line(length + 1:)
            end do
            write (numbers, "(i0, a, i0)") size, " values, and the spec has ", its_size
            if (its_size /= size) call fault("the program takes " // trim(numbers) // ", of shape [" // trim(shape) &
                                             // "], of the " // role // " " // name)
            call c_f_pointer(memory, all_of_it, [int(offset / 8) + size])
            values => all_of_it(offset / 8 + 1:)
            return
        end do
        call fault("the spec has no " // role // " " // name // "; known:" // known)
        values => null()
    end function

    subroutine fault(reason)
        character(*), intent(in) :: reason
        call say("fault " // reason)
        call posix_exit(1_c_int)
    end subroutine

    subroutine say(text)
        character(*), intent(in) :: text
        character(:), allocatable :: line
        character(24) :: ours, theirs
        integer :: i
        line = text // new_line("a")
        do i = 1, len(text)
            if (text(i:i) == new_line("a")) line(i:i) = " "
        end do
        if (posix_getpid() /= pid) then
            write (ours, "(i0)") posix_getpid()
            write (theirs, "(i0)") pid
            line = "fault process " // trim(ours) // " was forked from " // trim(theirs) &
                   // ", which alone may speak to penstock" // new_line("a")
        end if
        if (posix_write(writing, line, len(line, c_size_t)) /= len(line)) &
            call posix_exit(1_c_int)  ! penstock is gone
    end subroutine

    ! A line from penstock, without its end; .false. when there are no more.
    function hear(line) result(is_there)
        character(max_line), intent(out) :: line
        logical :: is_there
        character(kind=c_char) :: letter(1)
        integer :: length
        line = ""
        length = 0
        do
            is_there = posix_read(reading, letter, 1_c_size_t) == 1
            if (.not. is_there .or. letter(1) == new_line("a")) return
            length = min(length + 1, max_line)
            line(length:length) = letter(1)
        end do
    end function
end module
