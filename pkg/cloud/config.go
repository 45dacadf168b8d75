package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says which account to talk to and how hard. The zero value of every field but the credentials is useful.
type Config struct {
	// Token, or Username and Password: one of the two ways to authenticate, not both.
	Token, Username, Password string
	// CredentialsDir is a mounted secret with the file token, or the files username and password. It is read again
	// when the files change, and wins over the fields above.
	CredentialsDir string
	// CredentialsFile is a file that holds credentials among other things, which ParseCredentials takes out of it. It is read
	// again when it changes, and wins over Token, Username and Password. A token wins over a user.
	CredentialsFile  string
	ParseCredentials func(text []byte) (token, username, password string, err error)
	// BeforeChange is asked before every attempt at a request that may change something; its error stops the request, which
	// then certainly had no effect. nil: nobody is asked.
	BeforeChange func(context.Context) error
	// Transport carries the requests in place of HTTP over TCP, such as to an API in the same process; nil: TCP.
	Transport http.RoundTripper
	// BaseURL of the API, without /1.3. Empty: UPCLOUD_DEBUG_API_BASE_URL, else the public API.
	BaseURL string
	// SkipCertificateVerify accepts any TLS certificate. For test endpoints alone.
	SkipCertificateVerify bool
	// UserAgent tells the API who asks.
	UserAgent string
	// ClusterID is the value of the label csi-cluster: put on what we make, and asked for when looking it up, so that
	// clusters sharing an account do not find each other's volumes. May be empty.
	ClusterID string
	// AdoptHalfMade lets CreateVolume take over a disk that UpCloud's own driver made for the volume and never told anybody of.
	// For the time of a move from that driver: it lists the account's disks once a minute while volumes are made.
	AdoptHalfMade bool
	// RequireImportLabel keeps disks that were made by hand from being attached, and backups made by hand from being restored,
	// unless they have LabelImport.
	RequireImportLabel bool
	// AttachedBefore reports whether a disk that was made by hand, and lacks LabelAttachedBy, was attached for the cluster before
	// there was that label. nil: assume that it was.
	AttachedBefore func(ctx context.Context, volumeID string) (bool, error)
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
	// RequestsPerSecond and Burst limit the rate of requests, Concurrency the number at one time. Zero: 50, 100, 32.
	// A change that must follow a look at once waits for none of them.
	RequestsPerSecond float64
	Burst             int
	Concurrency       int
	// GroupConcurrency and TenantConcurrency limit the number of requests at one time of one group, and of one named tenant (see Share).
	// Zero: Concurrency alone counts.
	GroupConcurrency, TenantConcurrency int
	// AttemptTimeout bounds one attempt of one request; zero: 60 s. Retries come on top, within the caller's context.
	AttemptTimeout time.Duration
	// Now is the clock that says how old an answer of the API is; nil: time.Now. It is for tests and benchmarks, which let it
	// run ahead. Deadlines, pauses and rates go by the machine's clock.
	Now func() time.Time

	setting string // where the credentials came from, for error messages
}

// maxClusterID leaves room in the title of an unfinished copy.
const maxClusterID = 100

// Names of the variables that hold credentials: ours are the SDK's; the second of each pair is what deployments of
// UpCloud's own cloud controller manager set.
var (
	tokenVariables    = []string{client.EnvToken, "UPCLOUD_API_TOKEN"}
	usernameVariables = []string{client.EnvUsername, "UPCLOUD_API_USER"}
	passwordVariables = []string{client.EnvPassword, "UPCLOUD_API_PASSWORD"}
)

// ConfigFromEnv reads credentials, UPCLOUD_DEBUG_API_BASE_URL and UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY. Absent
// credentials are no error here, as they may come from CredentialsDir; contradicting or half ones are.
func ConfigFromEnv() (Config, error) {
	token, tokenName := firstSet(tokenVariables)
	username, usernameName := firstSet(usernameVariables)
	password, passwordName := firstSet(passwordVariables)
	config := Config{
		Token: token, Username: username, Password: password,
		BaseURL:               os.Getenv(client.EnvDebugAPIBaseURL),
		SkipCertificateVerify: os.Getenv(client.EnvDebugSkipCertificateVerify) == "1",
	}
	switch {
	case token != "" && (username != "" || password != ""):
		return Config{}, fmt.Errorf("both %s and %s are set: unset one of them, the API takes one way to authenticate",
			tokenName, firstNonEmpty(usernameName, passwordName))
	case token != "":
		config.setting = tokenName
	case username != "" && password == "":
		return Config{}, fmt.Errorf("%s is set but %s is not: set both, or %s alone", usernameName, client.EnvPassword, client.EnvToken)
	case password != "" && username == "":
		return Config{}, fmt.Errorf("%s is set but %s is not: set both, or %s alone", passwordName, client.EnvUsername, client.EnvToken)
	case username != "":
		config.setting = usernameName + " and " + passwordName
	}
	return config, nil
}

// String hides the credentials, whatever verb prints it.
func (c Config) String() string {
	return fmt.Sprintf("{BaseURL:%s ClusterID:%s CredentialsDir:%s Token:%s Username:%s Password:%s}",
		c.BaseURL, c.ClusterID, c.CredentialsDir, redact(c.Token), redact(c.Username), redact(c.Password))
}

// GoString hides the credentials too.
func (c Config) GoString() string { return "cloud.Config" + c.String() }

// MarshalLog is what logr prints of a Config.
func (c Config) MarshalLog() any { return c.String() }

func (c Config) withDefaults() Config {
	if c.BaseURL == "" {
		c.BaseURL = os.Getenv(client.EnvDebugAPIBaseURL)
	}
	if c.BaseURL == "" {
		c.BaseURL = client.APIBaseURL
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if os.Getenv(client.EnvDebugSkipCertificateVerify) == "1" {
		c.SkipCertificateVerify = true
	}
	c.UserAgent = firstNonEmpty(c.UserAgent, "cloud-provider-upcloud")
	if c.RequestsPerSecond == 0 {
		c.RequestsPerSecond = 50
	}
	if c.Burst == 0 {
		c.Burst = 100
	}
	if c.Concurrency == 0 {
		c.Concurrency = 32
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = 60 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate tells every fault at once.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if c.CredentialsDir == "" && c.CredentialsFile == "" {
		user := c.Username != "" || c.Password != ""
		switch {
		case c.Token == "" && !user:
			fault("no UpCloud credentials: set %s, or %s and %s, or give a directory with them",
				client.EnvToken, client.EnvUsername, client.EnvPassword)
		case c.Token != "" && user:
			fault("both a token and a user are given: the API takes one way to authenticate, leave one out")
		case user && (c.Username == "" || c.Password == ""):
			fault("a user needs a name and a password: set both %s and %s", client.EnvUsername, client.EnvPassword)
		}
	}
	switch u, err := url.Parse(c.BaseURL); {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		fault("the API's base URL %q (%s) is not a URL: give it as https://HOST", c.redactedURL(), client.EnvDebugAPIBaseURL)
	case u.User != nil:
		fault("the API's base URL (%s) carries a user: give credentials by their own settings", client.EnvDebugAPIBaseURL)
	case u.RawQuery != "" || u.Fragment != "":
		fault("the API's base URL %q (%s) carries a query: give it as https://HOST", c.BaseURL, client.EnvDebugAPIBaseURL)
	case strings.HasSuffix(u.Path, "/"+client.APIVersion):
		fault("the API's base URL %q (%s) ends in /%s: leave that out, it is added", c.BaseURL, client.EnvDebugAPIBaseURL, client.APIVersion)
	}
	if err := checkLabel(LabelCluster, c.ClusterID); err != nil {
		fault("the cluster ID is no good as a label: %w", err)
	} else if n := utf8.RuneCountInString(c.ClusterID); n > maxClusterID {
		fault("the cluster ID has %d characters: give at most %d, titles of storages hold it", n, maxClusterID)
	}
	if err := checkToken(c.Token); c.CredentialsDir == "" && err != nil {
		fault("the token (%s) %w", firstNonEmpty(c.setting, client.EnvToken), err)
	}
	if min(c.RequestsPerSecond, float64(min(c.Burst, c.Concurrency, c.GroupConcurrency, c.TenantConcurrency))) < 0 || c.AttemptTimeout < 0 {
		fault("RequestsPerSecond, Burst, the limits of concurrency and AttemptTimeout must not be negative; zero means the default")
	}
	return oneSentence(faults)
}

// oneSentence joins faults on one line, as what is told at start-up must be.
func oneSentence(faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	texts := make([]string, len(faults))
	for i, fault := range faults {
		texts[i] = fault.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// redactedURL is the base URL without what may be a password, as one that does not parse may still hold one.
func (c Config) redactedURL() string {
	if at := strings.LastIndex(c.BaseURL, "@"); at >= 0 {
		return "[redacted]" + c.BaseURL[at:]
	}
	return c.BaseURL
}

func redact(secret string) string {
	if secret == "" {
		return ""
	}
	return "[redacted]"
}

func firstSet(names []string) (value, name string) {
	for _, name := range names {
		if value := strings.TrimSpace(os.Getenv(name)); value != "" {
			return value, name
		}
	}
	return "", ""
}

func firstNonEmpty(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}
