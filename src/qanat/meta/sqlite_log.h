// Is SQLite's log (meta.db-wal) what was written?
//
// When SQLite opens a log, it takes the frames up to the first whose checksum is wrong, and drops
// the rest without a word. That is right after a power cut, which tears the batch that was being
// written and was acknowledged to nobody; but after bit rot in the middle it drops batches that
// were. The two can be told apart. A batch is made durable before the first frame of the next one
// is written, and each frame's checksum goes on from that of the frame before it. So a frame behind
// the break whose checksum goes on from a frame that ends a batch, itself behind the break (or the
// broken one), proves that this batch was durable once, with everything before it: then the break
// is no torn end. What frames of given-up batches leave in the log never goes on from the end of a
// batch.
//
// Not found: damage of the very last batch, which looks like a torn one, and a log that was cut
// off.
#pragma once

#include <string>

#include "qanat/base/file_system.h"
#include "qanat/base/status.h"

namespace qanat::meta {

// kDataLoss: it is damaged, and opening the database would drop what was acknowledged. OK if there
// is no log.
Status check_log(FileSystem& files, const std::string& path);

}  // namespace qanat::meta
