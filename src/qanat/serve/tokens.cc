#include "qanat/serve/tokens.h"

#include <algorithm>
#include <utility>

#include "qanat/api/address.h"
#include "qanat/api/error.h"
#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"

namespace qanat::serve {
namespace {

constexpr std::string_view kPrefix = "/v1/token/";
constexpr std::string_view kNamePrefix = "/v1/token-name/";
constexpr int64_t kCacheMs = 5000;
constexpr size_t kCacheSize = 10'000;
constexpr int64_t kExpiryMs = 1000;  // between looks at the clock, which may be set
constexpr int kAttempts = 20;

struct TokenRecord {
  int64_t v = 1;
  api::TokenInfo info;
};
template <class V>
void describe(V& v, TokenRecord& t) {
  v.type("TokenRecord", "");
  v.required("v", t.v, "");
  v.required("info", t.info, "");
}

std::string token_key(const Hash& hash) { return str_cat(kPrefix, hash.to_hex()); }

bool is_admin(const api::TokenInfo& token) {
  return std::find(token.scopes.begin(), token.scopes.end(), "admin") != token.scopes.end();
}

void end_streams(const std::vector<std::shared_ptr<net::EventStream>>& streams,
                 std::string_view why) {
  for (const auto& stream : streams) {
    (void)stream->send({"error", api::error_json(unauthenticated(std::string(why))), ""});
    stream->close();
  }
}

bool has(const Caller& caller, std::string_view kind, std::string_view name) {
  return caller.scopes.contains(str_cat(kind, ":", name)) ||
         caller.scopes.contains(str_cat(kind, ":*"));
}

}  // namespace

std::string qualified(std::string_view project, std::string_view name) {
  return project == api::kDefaultProject ? std::string(name) : str_cat(project, "/", name);
}

bool Caller::may_write(std::string_view project, std::string_view repo) const {
  return is_admin() || has(*this, "writer", qualified(project, repo));
}
bool Caller::may_read(std::string_view project, std::string_view repo) const {
  return may_write(project, repo) || has(*this, "reader", qualified(project, repo));
}
bool Caller::may_operate(std::string_view project, std::string_view pipeline) const {
  return is_admin() || has(*this, "operator", qualified(project, pipeline));
}
bool Caller::may_observe(std::string_view project, std::string_view pipeline) const {
  return may_operate(project, pipeline) || may_read(project, pipeline);
}
bool Caller::may_enter(std::string_view project) const {
  if (is_admin() || project == api::kDefaultProject) return true;
  const std::string named = str_cat(":", project, "/");
  return std::any_of(scopes.begin(), scopes.end(), [&](const std::string& scope) {
    return scope.ends_with(":*") || scope.find(named) != std::string::npos;
  });
}
bool Caller::may(std::string_view project, std::string_view scope) const {
  if (is_admin()) return true;
  const auto [kind, name] = split_once(scope, ':');
  if (kind == "reader") return may_read(project, name);
  if (kind == "writer") return may_write(project, name);
  if (kind == "operator") return may_operate(project, name);
  return scopes.contains(scope);
}

Status Tokens::check_scope(std::string_view scope) {
  if (scope == "admin" || scope == "network-host") return ok_status();
  const auto [kind, name] = split_once(scope, ':');
  if ((kind == "reader" || kind == "writer" || kind == "operator") && !name.empty()) {
    if (name == "*") return ok_status();
    const auto address = api::parse_name_address(name);
    if (address.ok()) return ok_status();
    return address.status().with_context(str_cat("scope ", quoted(scope)));
  }
  return invalid_argument(str_cat("unknown scope ", quoted(scope)),
                          "scopes are admin, reader:REPO, writer:REPO, operator:PIPELINE and "
                          "network-host; names outside the project default are PROJECT/NAME; * "
                          "stands for all names");
}

std::string Tokens::plain_scope(std::string_view scope) {
  const auto [kind, name] = split_once(scope, ':');
  const auto address = name.empty() || name == "*" ? Result<api::Address>(invalid_argument(""))
                                                   : api::parse_name_address(name);
  return address.ok() ? str_cat(kind, ":", address->to_string()) : std::string(scope);
}

Tokens::~Tokens() {
  std::thread expirer;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
    expirer.swap(expirer_);
  }
  if (expirer.joinable()) expirer.join();
}

std::string Tokens::key_of(const Caller& caller) { return token_key(caller.token); }

Result<bool> Tokens::exists(const std::string& name) const {
  QANAT_ASSIGN_OR_RETURN(const auto found, meta_.get(str_cat(kNamePrefix, name)));
  return found.has_value();
}

Result<std::string> Tokens::make_first(const std::string& existing_secret) {
  QANAT_ASSIGN_OR_RETURN(const auto any, meta_.range(meta::KeyRange::prefix(kNamePrefix),
                                                     {.limit = 1, .keys_only = true}));
  if (!any.items.empty()) return existing_secret;
  const std::string secret =
      existing_secret.empty() ? "qanat_" + random_id() + random_id() : existing_secret;
  const Hash hash = sha256(secret);
  TokenRecord record;
  record.info = {hash.to_hex().substr(0, kIdLength), "root", {"admin"}, {clock_.wall_ms()}, "", {}};
  QANAT_RETURN_IF_ERROR(meta_
                            .commit(meta::Transaction()
                                        .when(meta::key_absent(str_cat(kNamePrefix, "root")))
                                        .put(str_cat(kNamePrefix, "root"), hash.to_hex())
                                        .put(token_key(hash), api::json_text(record)))
                            .status());
  return secret;
}

Result<api::CreateTokenResponse> Tokens::create(const api::CreateTokenRequest& request,
                                                const std::string& by) {
  QANAT_RETURN_IF_ERROR(check_repo_name(request.name).with_context("the token's name"));
  if (request.scopes.empty()) return invalid_argument("a token without scopes could do nothing");
  std::vector<std::string> scopes;
  for (const std::string& scope : request.scopes) {
    QANAT_RETURN_IF_ERROR(check_scope(scope));
    scopes.push_back(plain_scope(scope));
  }
  if (request.expires.ms != 0 && request.expires.ms <= clock_.wall_ms())
    return invalid_argument("the token would have expired already");
  api::CreateTokenResponse response;
  response.token = "qanat_" + random_id() + random_id();
  const Hash hash = sha256(response.token);
  response.info = {hash.to_hex().substr(0, kIdLength),
                   request.name,
                   scopes,
                   {clock_.wall_ms()},
                   by,
                   request.expires};
  const std::string name_key = str_cat(kNamePrefix, request.name);
  QANAT_ASSIGN_OR_RETURN(
      const auto result,
      meta_.commit(meta::Transaction()
                       .when(meta::key_absent(name_key))
                       .put(name_key, hash.to_hex())
                       .put(token_key(hash), api::json_text(TokenRecord{1, response.info}))));
  if (!result.succeeded)
    return already_exists(str_cat("there is a token named ", request.name, " already"),
                          "choose another name, or delete that one first");
  return response;
}

Result<std::vector<api::TokenInfo>> Tokens::list() const {
  QANAT_ASSIGN_OR_RETURN(const auto found, meta_.range(meta::KeyRange::prefix(kPrefix)));
  std::vector<api::TokenInfo> tokens;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, api::parse_json<TokenRecord>(item.value));
    tokens.push_back(std::move(record.info));
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return tokens;
}

Result<api::TokenInfo> Tokens::remove(const std::string& name) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(const auto tokens, list());
    const auto is_it = [&](const api::TokenInfo& t) { return t.name == name || t.id == name; };
    const auto found = std::find_if(tokens.begin(), tokens.end(), is_it);
    if (found == tokens.end())
      return not_found(str_cat("there is no token ", name),
                       "`qanat list token` shows the tokens there are");
    const std::string name_key = str_cat(kNamePrefix, found->name);
    QANAT_ASSIGN_OR_RETURN(const auto hash_text, meta_.get(name_key));
    if (!hash_text) continue;
    QANAT_ASSIGN_OR_RETURN(const Hash hash, Hash::from_hex(hash_text->value));
    meta::Transaction removal;
    removal.when(meta::mod_revision_is(name_key, hash_text->mod_revision));
    removal.erase(name_key).erase(token_key(hash));
    removal.may_use_reserve = true;
    if (is_admin(*found) && found->expires.ms == 0) {
      // Somebody must be left who can make tokens, today and when others have expired.
      const auto other = std::find_if(tokens.begin(), tokens.end(), [&](const api::TokenInfo& t) {
        return is_admin(t) && t.expires.ms == 0 && t.name != found->name;
      });
      if (other == tokens.end()) {
        return failed_precondition(
            str_cat(found->name, " is the last token with scope admin that does not expire"),
            "create another one first");
      }
      // Two that are deleted at the same time are not each other's last.
      removal.when(meta::key_present(str_cat(kNamePrefix, other->name)));
    }
    QANAT_ASSIGN_OR_RETURN(const auto removed, meta_.commit(std::move(removal)));
    if (!removed.succeeded) continue;
    forget(hash);
    return *found;
  }
  return conflict("tokens change too fast", "try again");
}

void Tokens::forget(const Hash& token) {
  std::vector<std::shared_ptr<net::EventStream>> ended;
  {
    MutexLock lock(mutex_);
    cache_.erase(token);
    ++removals_;
    const auto [first, last] = streams_.equal_range(token);
    for (auto stream = first; stream != last; ++stream) {
      if (auto open = stream->second.stream.lock()) ended.push_back(std::move(open));
    }
    streams_.erase(first, last);
  }
  end_streams(ended, "the token was deleted");
}

void Tokens::end_expired() {
  MutexLock lock(mutex_);
  while (!ending_) {
    std::vector<std::shared_ptr<net::EventStream>> ended;
    bool more = false;
    for (auto it = streams_.begin(); it != streams_.end();) {
      const int64_t expires_ms = it->second.expires_ms;
      const bool expired = expires_ms != 0 && expires_ms <= clock_.wall_ms();
      auto open = expires_ms == 0 ? nullptr : it->second.stream.lock();
      if (expires_ms != 0 && (expired || !open)) {
        if (open) ended.push_back(std::move(open));
        it = streams_.erase(it);
        continue;
      }
      more = more || expires_ms != 0;
      ++it;
    }
    if (!ended.empty()) {
      lock.unlock();
      end_streams(ended, "the token has expired");
      ended.clear();
      lock.lock();
    } else if (more) {
      changed_.wait_for_ms(mutex_, kExpiryMs);
    } else {
      changed_.wait(mutex_);
    }
  }
}

// Once, at the first stream. Without it only deletions by this server are seen.
void Tokens::watch_deletions() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(watching_, true)) return;
  }
  auto watch =
      meta_.watch(meta::KeyRange::prefix(kPrefix), 0, [this](const meta::WatchBatch& batch) {
        for (const meta::Event& event : batch.events) {
          if (!event.deleted) continue;
          const auto hash = Hash::from_hex(event.item.key.substr(std::string_view(kPrefix).size()));
          if (hash.ok()) forget(*hash);
        }
      });
  if (watch.ok()) {
    deletions_ = *std::move(watch);
  } else {
    log_warning("deletions of tokens are not watched", {{"error", watch.status()}});
  }
}

void Tokens::end_with_token(const Caller& caller, const std::shared_ptr<net::EventStream>& stream) {
  watch_deletions();
  {
    MutexLock lock(mutex_);
    if (streams_.size() >= purge_at_) {
      std::erase_if(streams_, [](const auto& entry) { return entry.second.stream.expired(); });
      purge_at_ = std::max<size_t>(64, 2 * streams_.size());
    }
    streams_.emplace(caller.token, Open{stream, caller.expires.ms});
    if (caller.expires.ms != 0) {
      if (!expirer_.joinable() && !ending_) expirer_ = std::thread([this] { end_expired(); });
      changed_.notify_all();
    }
  }
  // It may have been deleted before it was noted here.
  const auto found = meta_.get(token_key(caller.token));
  if (found.ok() && !*found) forget(caller.token);
}

Result<std::shared_ptr<const Caller>> Tokens::authenticate(std::string_view secret) {
  if (secret.empty())
    return unauthenticated("there is no token in the request",
                           "send it as `Authorization: Bearer TOKEN`; the first one lies in the "
                           "data folder, in the file token");
  const Hash hash = sha256(secret);
  const int64_t now = clock_.monotonic_ms();
  std::shared_ptr<const Caller> caller;
  bool cached = false;
  uint64_t removals = 0;
  {
    MutexLock lock(mutex_);
    removals = removals_;
    const auto found = cache_.find(hash);
    if (found != cache_.end() && found->second.until_ms > now) {
      caller = found->second.caller;
      cached = true;
    }
  }
  if (!cached) {
    QANAT_ASSIGN_OR_RETURN(const auto found, meta_.get(token_key(hash)));
    if (found) {
      QANAT_ASSIGN_OR_RETURN(const auto record, api::parse_json<TokenRecord>(found->value));
      auto made = std::make_shared<Caller>();
      made->name = record.info.name;
      made->scopes.insert(record.info.scopes.begin(), record.info.scopes.end());
      made->expires = record.info.expires;
      made->token = hash;
      caller = std::move(made);
    }
    MutexLock lock(mutex_);
    if (cache_.size() >= kCacheSize) cache_.clear();
    if (removals == removals_) cache_[hash] = {caller, now + kCacheMs};
  }
  if (!caller)
    return unauthenticated(
        "the token is not known here: it was deleted, or belongs to another server");
  if (caller->expires.ms != 0 && caller->expires.ms <= clock_.wall_ms())
    return unauthenticated(str_cat("the token ", caller->name, " has expired"));
  return caller;
}

}  // namespace qanat::serve
