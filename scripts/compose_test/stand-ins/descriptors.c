/* Says that a process may have 65,536 descriptors: a node of a cluster starts with no fewer, and the
   machine of a test may allow fewer to everybody. */
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int getrlimit(__rlimit_resource_t resource, struct rlimit *limit) {
  long failed = syscall(SYS_prlimit64, 0, resource, NULL, limit);
  if (!failed && resource == RLIMIT_NOFILE && limit->rlim_max < 65536)
    limit->rlim_cur = limit->rlim_max = 65536;
  return failed;
}

int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit) {
  return getrlimit(resource, (struct rlimit *)limit);
}
