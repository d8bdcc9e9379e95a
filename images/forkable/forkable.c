/*
 * forkable.so: preloaded into QEMU, lets a machine that stands still be copied with all that it has translated.
 *
 * In: on the seqpacket socket whose number is in NETPOLL_FORKABLE, one message a copy: struct request, and as SCM_RIGHTS the
 * descriptors that the copy has in the places of its original's, and at last its memory where that is shared. Out: struct answer, from the copy when it runs, or from the original
 * when it refuses. Rule: what a copy cannot share with its original (event counters, epoll sets, threads) it gets for its own; whatever is not
 * understood is refused, and the original goes on as if nothing had been asked. When the socket closes the original ends.
 *
 * fork(2) copies memory and one thread. QEMU's other threads stand in a wait while the machine is stopped, and each was recorded
 * before it began to wait: registers, signal mask, thread pointer. The copy makes a thread for each, with that thread pointer, which jumps
 * to where it was recorded and returns from its wait as if woken for nothing. POSIX allows that of pthread_cond_wait(), futex(2) of
 * FUTEX_WAIT; of poll(2) it is a timeout. Jumping out of pthread_cond_wait() runs its handler for cancellation, which takes the waiter off the condition and
 * locks the mutex: just what is needed, whatever a condition looks like in this C library.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS 32
#define PLACES 16
#define PATIENCE 2000 /* milliseconds until every thread stands in a wait */

struct request {
	int32_t count;
	int32_t parent; /* whose end is the copy's, too; -1 for anybody's */
	int32_t shared; /* the original's number of memory that other processes see; the last descriptor is the copy's, as large. -1: none */
	int32_t place[PLACES];
};

struct answer {
	int32_t pid; /* of the copy; -1: refused, `why` says it; -2: ask again */
	char why[252];
};

enum { REFUSED = -1, AGAIN = -2 };

struct standing {
	jmp_buf where;
	int waits;
	pid_t tid;
	int *tid_address; /* in its struct pthread; the kernel clears it when the thread ends */
	void *thread_pointer;
	sigset_t mask;
	pthread_mutex_t *mutex; /* which it wants when it is woken */
	char stack[16384] __attribute__((aligned(64))); /* until it has jumped to its own */
};

static struct standing threads[THREADS];
static int known;
static __thread struct standing *mine;
static int control = -1; /* the socket; never in a copy */
static pid_t main_thread;

static int (*real_cond_wait)(pthread_cond_t *, pthread_mutex_t *);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);

/* syscall(2) is asked for before constructors have run. */
static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if ((unsigned long)result > -4096UL) {
		errno = -result;
		return -1;
	}
	return result;
}

static pid_t thread_number(void)
{
	return kernel(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

__attribute__((constructor)) static void start(void)
{
	const char *number = getenv("NETPOLL_FORKABLE");

	/* dlsym() would find the conditions of before glibc 2.3.2 */
	real_cond_wait = dlvsym(RTLD_NEXT, "pthread_cond_wait", "GLIBC_2.3.2");
	real_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
	real_ppoll = dlsym(RTLD_NEXT, "ppoll");
	main_thread = getpid();
	if (number)
		control = atoi(number);
	unsetenv("NETPOLL_FORKABLE");
}

/* ---- a thread that waits ---- */

static struct standing *me(void)
{
	int n;

	if (mine)
		return mine;
	if ((n = __atomic_fetch_add(&known, 1, __ATOMIC_SEQ_CST)) >= THREADS)
		return NULL;
	mine = &threads[n];
	prctl(PR_GET_TID_ADDRESS, &mine->tid_address);
	__asm__("mov %%fs:0, %0" : "=r"(mine->thread_pointer));
	mine->tid = thread_number();
	return mine;
}

/* Where setjmp() is called is where the copy's thread returns, so this is a macro: true there. */
#define STANDS(self, lock)                                                      \
	({                                                                      \
		(self)->mutex = (lock);                                         \
		pthread_sigmask(SIG_SETMASK, NULL, &(self)->mask);              \
		int copied = _setjmp((self)->where);                            \
		if (!copied)                                                    \
			__atomic_store_n(&(self)->waits, 1, __ATOMIC_SEQ_CST);  \
		copied;                                                         \
	})

static void goes_on(struct standing *self)
{
	__atomic_store_n(&self->waits, 0, __ATOMIC_SEQ_CST);
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	struct standing *self = control >= 0 ? me() : NULL;
	int result;

	if (!self)
		return real_cond_wait(cond, mutex);
	if (STANDS(self, mutex))
		return 0;
	result = real_cond_wait(cond, mutex);
	goes_on(self);
	return result;
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
	struct standing *self = control >= 0 ? me() : NULL;
	int result;

	if (!self)
		return real_cond_timedwait(cond, mutex, until);
	if (STANDS(self, mutex))
		return 0;
	result = real_cond_timedwait(cond, mutex, until);
	goes_on(self);
	return result;
}

/* QEMU's and GLib's events wait by futex(2). */
long syscall(long number, ...)
{
	struct standing *self = NULL;
	va_list list;
	long a[6], result;

	va_start(list, number);
	for (int n = 0; n < 6; n++)
		a[n] = va_arg(list, long);
	va_end(list);
	if (control >= 0 && number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
		self = me();
	if (self && STANDS(self, NULL)) {
		errno = EINTR;
		return -1;
	}
	result = kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (self)
		goes_on(self);
	return result;
}

/* A loop of another thread than the main one: in the copy it finds nothing ready, and asks again. */
static int poll_beside(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	struct standing *self = me();
	int ready;

	if (!self)
		return real_ppoll(fds, count, timeout, mask);
	if (STANDS(self, NULL)) {
		for (nfds_t n = 0; n < count; n++)
			fds[n].revents = 0;
		return 0;
	}
	ready = real_ppoll(fds, count, timeout, mask);
	goes_on(self);
	return ready;
}

/* ---- what QEMU must not do ---- */

/* The ring would be memory that original and copy share. */
int io_uring_queue_init(unsigned entries, void *ring, unsigned flags)
{
	(void)entries, (void)ring, (void)flags;
	return -ENOSYS;
}

/* QEMU keeps the guest's memory from what it forks, which is never itself (system/physmem.c: ram_block_add). */
int madvise(void *start, size_t length, int advice)
{
	if (advice == MADV_DONTFORK && control >= 0)
		return 0;
	return kernel(SYS_madvise, (long)start, length, advice, 0, 0, 0);
}

/* ---- descriptors ---- */

/* A number of /proc/self/fdinfo/FD. */
static int noted(int fd, const char *key, int base, long *value)
{
	char path[64], line[256];
	int found = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	if (!(file = fopen(path, "r")))
		return 0;
	while (!found && fgets(line, sizeof line, file))
		if (!strncmp(line, key, strlen(key))) {
			*value = strtol(line + strlen(key), NULL, base);
			found = 1;
		}
	fclose(file);
	return found;
}

static int replaced(int fd, int fresh, int flags)
{
	int done = fresh >= 0 && dup3(fresh, fd, flags & O_CLOEXEC) >= 0;

	if (fresh >= 0)
		close(fresh);
	return done;
}

/* What kind of descriptor it is decides; NULL, or why there is no copying. `renew`: in the copy, gives it its own. */
static const char *descriptor(int fd, const char *kind, int renew)
{
	long flags = 0, count = 0;

	if (strncmp(kind, "anon_inode:", 11) || strstr(kind, "[signalfd]"))
		return NULL; /* a signalfd tells whoever reads of its own signals */
	if (strstr(kind, "[eventpoll]"))
		return noted(fd, "tfd:", 10, &count)                                          ? "an epoll set is in use"
		       : renew && !replaced(fd, epoll_create1(EPOLL_CLOEXEC), O_CLOEXEC) ? "no epoll set"
											 : NULL;
	if (!strstr(kind, "[eventfd]"))
		return "a descriptor of an unknown kind is open";
	if (!renew)
		return NULL;
	noted(fd, "flags:", 8, &flags);
	noted(fd, "eventfd-count:", 16, &count);
	return replaced(fd, eventfd(count, flags & (O_NONBLOCK | O_CLOEXEC)), flags) ? NULL : "no eventfd";
}

static const char *descriptors(int renew)
{
	DIR *folder = opendir("/proc/self/fd");
	const char *why = folder ? NULL : "no /proc/self/fd";
	struct dirent *entry;

	while (!why && (entry = readdir(folder))) {
		char kind[64] = "";

		if (readlinkat(dirfd(folder), entry->d_name, kind, sizeof kind - 1) > 0)
			why = descriptor(atoi(entry->d_name), kind, renew);
	}
	if (folder)
		closedir(folder);
	return why;
}

/* ---- memory that other processes see ---- */

/* What is data, not what is a hole. */
static int copied_data(int from, int to)
{
	off_t start = 0, end = 0;

	while ((start = lseek(from, end, SEEK_DATA)) >= 0) {
		if ((end = lseek(from, start, SEEK_HOLE)) < 0 || lseek(to, start, SEEK_SET) < 0)
			return 0;
		while (start < end)
			if (sendfile(to, from, &start, end - start) <= 0)
				return 0;
	}
	return errno == ENXIO;
}

/* Where the file is mapped, the other one is: at the same addresses, with the same rights. */
static int mapped_instead(const struct stat *old, int fresh)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned long start, end, offset, inode;
	int found = 0, good = 1;
	char line[512], mode[5];

	while (file && good && fgets(line, sizeof line, file))
		if (sscanf(line, "%lx-%lx %4s %lx %*s %lu", &start, &end, mode, &offset, &inode) == 5 && inode == old->st_ino &&
		    strstr(line, "/memfd:")) {
			int rights = (mode[0] == 'r' ? PROT_READ : 0) | (mode[1] == 'w' ? PROT_WRITE : 0) | (mode[2] == 'x' ? PROT_EXEC : 0);

			good = mode[3] == 's' &&
			       mmap((void *)start, end - start, rights, MAP_SHARED | MAP_FIXED, fresh, offset) != MAP_FAILED;
			found++;
		}
	if (file)
		fclose(file);
	return found && good;
}

/* In the copy: memory of its own instead of the original's, with what is in it; NULL, or why there is none. */
static const char *remember(int known, int fresh)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat old, each;
	const char *why = NULL;

	if (!folder || fstat(known, &old))
		why = "no memory to copy";
	else if (!copied_data(known, fresh))
		why = "its memory cannot be written";
	else if (!mapped_instead(&old, fresh))
		why = "its memory is not mapped as expected";
	while (!why && (entry = readdir(folder))) {
		int fd = atoi(entry->d_name);

		if (fd != fresh && !fstat(fd, &each) && each.st_dev == old.st_dev && each.st_ino == old.st_ino &&
		    dup3(fresh, fd, fcntl(fd, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
			why = "no descriptor of its memory";
	}
	if (folder)
		closedir(folder);
	return why;
}

/* ---- threads ---- */

static int standing(void)
{
	int count = 0;

	for (int n = 0; n < known && n < THREADS; n++)
		count += __atomic_load_n(&threads[n].waits, __ATOMIC_SEQ_CST);
	return count;
}

/* How many threads there are beside this one; -1 if one of them does not stand in a wait. */
static int all_stand(void)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	int count = 0;

	while (folder && (entry = readdir(folder)))
		count += entry->d_name[0] != '.' && atoi(entry->d_name) != main_thread;
	if (!folder)
		return -1;
	closedir(folder);
	return count == standing() ? count : -1;
}

/* Whether the kernel told each thread where glibc keeps its number. */
static int every_number_has_a_place(void)
{
	for (int n = 0; n < known && n < THREADS; n++)
		if (threads[n].waits && !threads[n].tid_address)
			return 0;
	return 1;
}

static void release(pthread_mutex_t **held, int count)
{
	while (count > 0)
		pthread_mutex_unlock(held[--count]);
}

/* Takes the mutexes that the threads will want: a thread that has one has left its wait. How many, or -1. */
static int hold(pthread_mutex_t **held)
{
	int count = 0;

	for (int n = 0; n < known && n < THREADS; n++) {
		int skip = !threads[n].waits || !threads[n].mutex;

		for (int k = 0; k < count && !skip; k++)
			skip = held[k] == threads[n].mutex;
		if (skip)
			continue;
		if (pthread_mutex_trylock(threads[n].mutex)) {
			release(held, count);
			return -1;
		}
		held[count++] = threads[n].mutex;
	}
	return count;
}

static int resume(void *argument)
{
	struct standing *self = argument;

	pthread_sigmask(SIG_SETMASK, &self->mask, NULL);
	_longjmp(self->where, 1);
}

static int make_thread(struct standing *each)
{
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
		    CLONE_CHILD_CLEARTID;

	return clone(resume, each->stack + sizeof each->stack, flags, each, each->tid_address, each->thread_pointer, each->tid_address);
}

/* ---- a copy ---- */

static void say(int socket, pid_t pid, const char *why)
{
	struct answer answer = { .pid = pid };

	snprintf(answer.why, sizeof answer.why, "%s", why ? why : "");
	send(socket, &answer, sizeof answer, MSG_NOSIGNAL);
}

/* Returns in the copy's main thread, for its other threads to be made; a copy that cannot be is no more. */
static void become(const struct request *request, const int *fds, int others)
{
	int socket = control;
	const char *why;

	control = -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (request->parent >= 0 && getppid() != request->parent)
		_exit(1);
	if (standing() != others) { /* between the last look and the copying one was woken */
		say(socket, AGAIN, "");
		_exit(1);
	}
	setsid();
	for (int n = 0; n < request->count - (request->shared >= 0); n++) {
		if (dup2(fds[n], request->place[n]) < 0)
			_exit(1);
		close(fds[n]);
	}
	why = request->shared >= 0 ? remember(request->shared, fds[request->count - 1]) : NULL;
	if (request->shared >= 0)
		close(fds[request->count - 1]);
	if (why || (why = descriptors(1))) {
		say(socket, REFUSED, why);
		_exit(1);
	}
	say(socket, getpid(), NULL);
	close(socket);
}

/* Parts from the original with a network namespace of its own from its first moment; without rights in its namespace it gets one in which
 * it has them. Where nobody may have one at all, cases are joined by sockets, and the original had none either. */
static pid_t part(void)
{
	static const int spaces[] = { CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET, 0 };
	int flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, *tid_address;
	pid_t pid = -1;

	prctl(PR_GET_TID_ADDRESS, &tid_address);
	for (unsigned n = 0; n < sizeof spaces / sizeof *spaces; n++) {
		pid = kernel(SYS_clone, flags | spaces[n], 0, 0, (long)tid_address, 0, 0);
		if (pid >= 0 || (errno != EPERM && errno != EINVAL && errno != ENOSYS))
			break;
	}
	return pid;
}

static void copy(const struct request *request, const int *fds)
{
	pthread_mutex_t *held[THREADS];
	int others = -1, count = -1;
	const char *why = NULL;
	pid_t pid = REFUSED;

	for (int n = 0; n < PATIENCE && (others < 0 || count < 0); n++) {
		if ((others = all_stand()) >= 0)
			count = hold(held);
		if (others < 0 || count < 0)
			usleep(1000);
	}
	if (!every_number_has_a_place())
		why = "this kernel does not say where threads keep their numbers (CONFIG_CHECKPOINT_RESTORE)";
	else if (others < 0 || count < 0)
		why = others < 0 ? "a thread does not stand in a wait" : "a lock is held";
	else if (!(why = descriptors(0)) && (pid = part()) < 0)
		why = errno == ENOSPC ? "there are as many network namespaces as may be" : strerror(errno);
	if (pid == 0) {
		become(request, fds, others);
		for (int n = 0; n < known && n < THREADS; n++)
			if (threads[n].waits && make_thread(&threads[n]) < 0)
				_exit(1);
	}
	release(held, count);
	if (why)
		say(control, REFUSED, why);
}

static void take(void)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * PLACES)];
		struct cmsghdr align;
	} space;
	struct request request;
	struct iovec part = { &request, sizeof request };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space };
	struct cmsghdr *header;
	int fds[PLACES], got = 0;
	ssize_t length = recvmsg(control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (length < 0)
		return;
	if (length == 0)
		_exit(0);
	for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
			got = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(header), got * sizeof(int));
		}
	if (length != sizeof request || got != request.count || got < (request.shared >= 0))
		say(control, REFUSED, "not a request");
	else
		copy(&request, fds);
	while (control >= 0 && got > 0) /* the copy has closed its own */
		close(fds[--got]);
}

/* QEMU's main loop waits here (util/main-loop.c: os_host_main_loop_wait), without its lock. */
int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd wide[count + 1];
	int ready;

	if (control < 0)
		return real_ppoll(fds, count, timeout, mask);
	if (thread_number() != main_thread)
		return poll_beside(fds, count, timeout, mask);
	if (count)
		memcpy(wide, fds, count * sizeof *fds);
	wide[count] = (struct pollfd){ .fd = control, .events = POLLIN };
	ready = real_ppoll(wide, count + 1, timeout, mask);
	if (ready > 0 && wide[count].revents) {
		take();
		for (nfds_t n = 0; n < count; n++)
			fds[n].revents = 0;
		return 0;
	}
	for (nfds_t n = 0; n < count; n++)
		fds[n].revents = wide[n].revents;
	return ready;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	struct timespec until = { timeout / 1000, timeout % 1000 * 1000000L };

	return ppoll(fds, count, timeout < 0 ? NULL : &until, NULL);
}
