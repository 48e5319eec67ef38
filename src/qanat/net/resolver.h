// The system's name resolution (getaddrinfo). In a file of its own: programs that do not call it do
// not link it.
#pragma once

#include "qanat/net/address.h"

namespace qanat::net {

// Thread safe. A look-up that takes longer than its time-out is left to end by itself on a detached
// thread.
Resolver system_resolver();

}  // namespace qanat::net
