// All bodies of the API.
#pragma once

#include "qanat/api/commits.h"
#include "qanat/api/error.h"
#include "qanat/api/files.h"
#include "qanat/api/fsck.h"
#include "qanat/api/jobs.h"
#include "qanat/api/list.h"
#include "qanat/api/pipelines.h"
#include "qanat/api/repos.h"
#include "qanat/api/tokens.h"
#include "qanat/api/worker.h"
