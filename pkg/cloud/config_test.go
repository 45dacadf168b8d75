package cloud

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// setEnv gives the test an environment with these variables of ours and no others.
func setEnv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, names := range [][]string{tokenVariables, usernameVariables, passwordVariables,
		{"UPCLOUD_DEBUG_API_BASE_URL", "UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY"}} {
		for _, name := range names {
			t.Setenv(name, env[name])
		}
	}
}

func TestConfigFromEnvReadsOneWayToAuthenticate(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		want Config
	}{
		"token":                {map[string]string{"UPCLOUD_TOKEN": "t"}, Config{Token: "t", setting: "UPCLOUD_TOKEN"}},
		"token as the CCM has": {map[string]string{"UPCLOUD_API_TOKEN": "t"}, Config{Token: "t", setting: "UPCLOUD_API_TOKEN"}},
		"user": {
			map[string]string{"UPCLOUD_USERNAME": "u", "UPCLOUD_PASSWORD": "p"},
			Config{Username: "u", Password: "p", setting: "UPCLOUD_USERNAME and UPCLOUD_PASSWORD"},
		},
		"user as the CCM has": {
			map[string]string{"UPCLOUD_API_USER": "u", "UPCLOUD_API_PASSWORD": "p"},
			Config{Username: "u", Password: "p", setting: "UPCLOUD_API_USER and UPCLOUD_API_PASSWORD"},
		},
		"nothing, as a directory may have them": {nil, Config{}},
		"debug": {
			map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": "http://127.0.0.1:1", "UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY": "1"},
			Config{BaseURL: "http://127.0.0.1:1", SkipCertificateVerify: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			setEnv(t, test.env)
			got, err := ConfigFromEnv()
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, %v, want %#v", got, err, test.want)
			}
		})
	}
}

func TestConfigFromEnvNamesTheVariablesThatContradict(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"token and user":   {map[string]string{"UPCLOUD_TOKEN": "t", "UPCLOUD_USERNAME": "u"}, []string{"UPCLOUD_TOKEN", "UPCLOUD_USERNAME"}},
		"user alone":       {map[string]string{"UPCLOUD_API_USER": "u"}, []string{"UPCLOUD_API_USER", "UPCLOUD_PASSWORD"}},
		"password alone":   {map[string]string{"UPCLOUD_PASSWORD": "p"}, []string{"UPCLOUD_PASSWORD", "UPCLOUD_USERNAME"}},
		"across the names": {map[string]string{"UPCLOUD_API_TOKEN": "t", "UPCLOUD_PASSWORD": "p"}, []string{"UPCLOUD_API_TOKEN", "UPCLOUD_PASSWORD"}},
	} {
		t.Run(name, func(t *testing.T) {
			setEnv(t, test.env)
			_, err := ConfigFromEnv()
			wantMentions(t, err, test.want...)
		})
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	setEnv(t, nil)
	for name, test := range map[string]struct {
		config Config
		want   []string
	}{
		"no credentials":     {Config{}, []string{"UPCLOUD_TOKEN", "UPCLOUD_USERNAME", "UPCLOUD_PASSWORD"}},
		"token and user":     {Config{Token: "t", Username: "u", Password: "p"}, []string{"token", "user"}},
		"half a user":        {Config{Username: "u"}, []string{"UPCLOUD_PASSWORD"}},
		"not a URL":          {Config{Token: "t", BaseURL: "api.upcloud.com"}, []string{"UPCLOUD_DEBUG_API_BASE_URL", "https://HOST"}},
		"URL with version":   {Config{Token: "t", BaseURL: "https://api.upcloud.com/1.3/"}, []string{"/1.3"}},
		"URL with a user":    {Config{Token: "t", BaseURL: "https://me:sesame@api.upcloud.com"}, []string{"user"}},
		"broken URL":         {Config{Token: "t", BaseURL: "http://me:sesame@[::1"}, []string{"UPCLOUD_DEBUG_API_BASE_URL"}},
		"long cluster ID":    {Config{Token: "t", ClusterID: strings.Repeat("x", 256)}, []string{"cluster ID", "256", "255"}},
		"odd cluster ID":     {Config{Token: "t", ClusterID: "a\nb"}, []string{"cluster ID", `"a\nb"`}},
		"two lines of token": {Config{Token: "sesame\nsesame"}, []string{"UPCLOUD_TOKEN", "line break"}},
		"negative limits":    {Config{Token: "t", Burst: -1}, []string{"Burst"}},
		"no such directory":  {Config{CredentialsDir: "/nonexistent/credentials"}, []string{"/nonexistent/credentials", "no such file"}},
		"empty directory":    {Config{CredentialsDir: t.TempDir()}, []string{"username", "token"}},
		"two faults, one go": {Config{BaseURL: "x", ClusterID: strings.Repeat("x", 256)}, []string{"UPCLOUD_TOKEN", "base URL", "cluster ID"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(test.config)
			if err == nil {
				c.Close()
			}
			wantMentions(t, err, test.want...)
			if err != nil && (strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the error tells a secret, or is not one line: %q", err)
			}
		})
	}
}

func TestConfigNeverPrintsCredentials(t *testing.T) {
	config := Config{Token: "ucat_sesame", Username: "sesame-user", Password: "sesame-password", BaseURL: "https://api.example"}
	for _, text := range []string{
		fmt.Sprint(config), fmt.Sprintf("%+v", config), fmt.Sprintf("%#v", config), (&config).String(),
		fmt.Sprint(config.MarshalLog()), fmt.Sprintf("%+v %#v", credentials{token: "sesame"}, credentials{password: "sesame"}),
		fmt.Sprintf("%+v", struct{ C credentials }{credentials{token: "sesame"}}),
	} {
		if strings.Contains(text, "sesame") {
			t.Errorf("%s tells a secret", text)
		}
	}
}

// wantMentions fails unless err is an error whose text has each of the words.
func wantMentions(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that mentions %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not mention %q", err, word)
		}
	}
}

func TestConfigTransportCarriesTheRequests(t *testing.T) {
	sim := simulatortest.StartInMemory(t, simulator.Config{})
	c := newCloud(t, Config{Token: sim.Token, BaseURL: sim.URL, Transport: sim.Transport()})
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if n := sim.Requests().Of("GET /account"); n != 1 {
		t.Errorf("the simulator got %d requests, want 1", n)
	}
}
