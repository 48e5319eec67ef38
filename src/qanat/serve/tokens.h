// Tokens: who may do what. A token is a secret of 256 bits; meta keeps its SHA-256 only.
//
//   /v1/token/<hash of the secret>   TokenRecord     what a request looks up
//   /v1/token-name/<name>            the hash        names are unique; deleting goes by name
//
// Scopes: `admin`; `reader:REPO`, `writer:REPO` (which may read too), `operator:PIPELINE`,
// `network-host`; the name may be `*`. A name of a project other than `default` is `project/name`.
//
// Look-ups are cached; changes made by this process are seen at once, those of others within a few
// seconds. Thread safe.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "qanat/api/tokens.h"
#include "qanat/base/clock.h"
#include "qanat/base/hash.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/meta/store.h"
#include "qanat/net/http_server.h"

namespace qanat::serve {

// A repo or pipeline as scopes name it: "name", or "project/name" outside `default`.
std::string qualified(std::string_view project, std::string_view name);

// Whom a request comes from.
struct Caller {
  std::string name;
  std::set<std::string, std::less<>> scopes;
  api::Timestamp expires;
  Hash token;  // of its secret

  bool is_admin() const { return scopes.contains("admin"); }
  bool may_read(std::string_view project, std::string_view repo) const;
  bool may_write(std::string_view project, std::string_view repo) const;
  bool may_operate(std::string_view project, std::string_view pipeline) const;
  // Operates the pipeline, or reads its output.
  bool may_observe(std::string_view project, std::string_view pipeline) const;
  // May do something there, as far as the scopes tell.
  bool may_enter(std::string_view project) const;
  // By the text of a scope, as a pipeline's rights are checked.
  bool may(std::string_view project, std::string_view scope) const;
};

class Tokens {
 public:
  Tokens(meta::Store& meta, Clock& clock) : meta_(meta), clock_(clock) {}
  ~Tokens();

  // The first token, `root`, of scope admin, if there is no token yet: gives its secret. A root
  // token that was deleted stays so: its secret lies in a file that others may have seen.
  Result<std::string> make_first(const std::string& existing_secret);
  Result<api::CreateTokenResponse> create(const api::CreateTokenRequest& request,
                                          const std::string& by);
  Result<std::vector<api::TokenInfo>> list() const;
  // By name or id. The last admin token that does not expire cannot be deleted.
  Result<api::TokenInfo> remove(const std::string& name);
  // kUnauthenticated says whether it is missing, unknown or expired.
  Result<std::shared_ptr<const Caller>> authenticate(std::string_view secret);
  Result<bool> exists(const std::string& name) const;
  // Closes the stream when the caller's token is deleted, by whichever server, or expires.
  void end_with_token(const Caller& caller, const std::shared_ptr<net::EventStream>& stream);

  static Status check_scope(std::string_view scope);
  // As it is kept and compared: names of the project `default` without it.
  static std::string plain_scope(std::string_view scope);
  // The key that is in meta as long as the token is.
  static std::string key_of(const Caller& caller);

 private:
  struct Cached {
    std::shared_ptr<const Caller> caller;  // null: unknown
    int64_t until_ms = 0;
  };

  struct Open {
    std::weak_ptr<net::EventStream> stream;
    int64_t expires_ms = 0;  // of its token; 0: never
  };

  void watch_deletions();
  void forget(const Hash& token);
  void end_expired();

  meta::Store& meta_;
  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  std::multimap<Hash, Open> streams_ GUARDED_BY(mutex_);
  size_t purge_at_ GUARDED_BY(mutex_) = 64;  // streams that ended are forgotten then
  bool watching_ GUARDED_BY(mutex_) = false;
  std::map<Hash, Cached> cache_ GUARDED_BY(mutex_);
  // Counts removals: what was read before one may not be kept after it.
  uint64_t removals_ GUARDED_BY(mutex_) = 0;
  bool ending_ GUARDED_BY(mutex_) = false;
  std::thread expirer_ GUARDED_BY(mutex_);  // once a stream with a token that expires was opened
  std::unique_ptr<meta::Watch> deletions_;  // last: its callback uses the others
};

}  // namespace qanat::serve
