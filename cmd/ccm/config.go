package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
)

// flags are the flags that k8s.io/cloud-provider does not have.
type flags struct {
	credentialsDir     string
	loadBalancerStatus string
}

func (f *flags) add(set *pflag.FlagSet) {
	set.StringVar(&f.credentialsDir, "credentials-dir", "", "directory of a mounted secret with the key token, or the keys "+
		"username and password; read again when it changes")
	set.StringVar(&f.loadBalancerStatus, "load-balancer-status", "", "what a Service's status holds of its load balancer: "+
		"hostname (default), ip, or both; wins over loadBalancerStatus in the configuration file")
}

// config is what the program runs with.
type config struct {
	cloud        cloud.Config
	loadBalancer loadbalancer.Config
	scope        labels.Selector
	explain      func(error) error // of the first question to the API
}

// configFile is the file named by --cloud-config. Its form is that of UpCloud's own CCM; loadBalancerStatus is added.
type configFile struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        map[string]any `json:"metadata,omitempty"`
	Data            struct {
		// ClusterDeploymentMode is accepted and does nothing, as in UpCloud's own CCM.
		ClusterDeploymentMode string `json:"clusterDeploymentMode"`
		APICredentials        struct {
			User     string `json:"user"`
			Password string `json:"password"`
			Token    string `json:"token"`
		} `json:"apiCredentials"`
		ClusterName                   string               `json:"clusterName"`
		ClusterID                     string               `json:"clusterID"`
		NodeScopeSelector             metav1.LabelSelector `json:"nodeScopeSelector"`
		LoadBalancerPlan              string               `json:"loadBalancerPlan"`
		LoadBalancerMaxBackendMembers int                  `json:"loadBalancerMaxBackendMembers"`
		LoadBalancerStatus            string               `json:"loadBalancerStatus"`
	} `json:"data"`
}

// Of the configuration file.
const (
	configKind    = "CCMConfig"
	configVersion = "infrastructure.cluster.x-k8s.io/v1alpha1"
)

// loadConfig puts flags, file and environment together, and tells every fault of the file at once.
func loadConfig(ours flags, path string) (config, error) {
	var file configFile
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return config{}, fmt.Errorf("--cloud-config: %w", err)
		}
		if file, err = parseConfigFile(text); err != nil {
			return config{}, fmt.Errorf("--cloud-config %s: %w", path, err)
		}
	}
	var loaded config
	var err error
	if loaded.cloud, err = cloudConfig(ours, file); err != nil {
		return config{}, err
	}
	// Checked before: the file's values in parseConfigFile.
	loaded.scope, _ = metav1.LabelSelectorAsSelector(&file.Data.NodeScopeSelector)
	if file.emptyScope() {
		loaded.scope = labels.Everything()
	}
	loaded.explain = func(err error) error { return file.refused(ours, path, err) }
	loaded.loadBalancer = loadbalancer.Config{
		ClusterID: file.Data.ClusterID, ClusterName: file.Data.ClusterName,
		Plan: file.Data.LoadBalancerPlan, MaxMembers: file.Data.LoadBalancerMaxBackendMembers,
	}
	status := file.Data.LoadBalancerStatus
	if ours.loadBalancerStatus != "" {
		status = ours.loadBalancerStatus
	}
	if loaded.loadBalancer.Status, err = loadbalancer.ParseStatusMode(status); err != nil {
		return config{}, fmt.Errorf("--load-balancer-status: %w", err)
	}
	return loaded, nil
}

// parseConfigFile reads the file strictly: a key that is not known is more likely misspelt than meant for nobody.
func parseConfigFile(text []byte) (configFile, error) {
	var file configFile
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		_, cause, found := strings.Cut(err.Error(), "json: ")
		if !found {
			return configFile{}, err
		}
		return configFile{}, fmt.Errorf("%s: remove or correct it", cause)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if file.Kind != "" && file.Kind != configKind {
		fault("kind is %q: want %s", file.Kind, configKind)
	}
	if file.APIVersion != "" && file.APIVersion != configVersion {
		fault("apiVersion is %q: want %s", file.APIVersion, configVersion)
	}
	if (file.Data.APICredentials.User == "") != (file.Data.APICredentials.Password == "") && file.Data.APICredentials.Token == "" {
		fault("data.apiCredentials has only one of user and password: set both, or token alone")
	}
	if _, err := metav1.LabelSelectorAsSelector(&file.Data.NodeScopeSelector); err != nil {
		fault("data.nodeScopeSelector: %w", err)
	}
	if file.Data.LoadBalancerMaxBackendMembers < 0 {
		fault("data.loadBalancerMaxBackendMembers is %d: want 1 or more, or 0 for %d",
			file.Data.LoadBalancerMaxBackendMembers, loadbalancer.DefaultMaxMembers)
	}
	if _, err := loadbalancer.ParseStatusMode(file.Data.LoadBalancerStatus); err != nil {
		fault("data.loadBalancerStatus: %w", err)
	}
	return file, errors.Join(faults...)
}

func (f *configFile) emptyScope() bool {
	return len(f.Data.NodeScopeSelector.MatchLabels) == 0 && len(f.Data.NodeScopeSelector.MatchExpressions) == 0
}

// cloudConfig chooses the credentials: a directory wins over the file, and the file over the environment.
func cloudConfig(ours flags, file configFile) (cloud.Config, error) {
	given := file.Data.APICredentials
	switch {
	case ours.credentialsDir != "":
		return cloud.Config{CredentialsDir: ours.credentialsDir}, nil
	case given.Token != "":
		return cloud.Config{Token: given.Token}, nil
	case given.User != "":
		return cloud.Config{Username: given.User, Password: given.Password}, nil
	}
	fromEnv, err := cloud.ConfigFromEnv()
	if err == nil && fromEnv.Token == "" && fromEnv.Username == "" {
		err = errors.New("no UpCloud credentials: set --credentials-dir, or data.apiCredentials in the --cloud-config file, or " +
			"UPCLOUD_TOKEN, or UPCLOUD_USERNAME and UPCLOUD_PASSWORD")
	}
	return fromEnv, err
}

// refused is what to say when the API does not take the credentials; err already names the setting, unless they came from
// the file.
func (f *configFile) refused(ours flags, path string, err error) error {
	given := f.Data.APICredentials
	if ours.credentialsDir != "" || given.Token == "" && given.User == "" || !errors.Is(err, cloud.ErrUnauthorized) {
		return err
	}
	return fmt.Errorf("the UpCloud API refused the credentials in data.apiCredentials of --cloud-config %s: set them to those of "+
		"an API user, or to a valid token", path)
}

// boolValue is a flag's value.
type boolValue bool

func (b *boolValue) Set(text string) (err error) {
	value, err := strconv.ParseBool(text)
	*b = boolValue(value)
	return err
}
func (b *boolValue) String() string   { return strconv.FormatBool(bool(*b)) }
func (b *boolValue) Type() string     { return "bool" }
func (b *boolValue) IsBoolFlag() bool { return true }
