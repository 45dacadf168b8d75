{{/* Labels of every object. `make manifests` leaves out those that only Helm gives. */}}
{{- define "upcloud.labels" -}}
app.kubernetes.io/name: cloud-provider-upcloud
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* An image's name. A registry for all images takes the place of the one that its repository begins with. */}}
{{- define "upcloud.image" -}}
{{- $global := default dict .root.Values.global -}}
{{- $repository := .image.repository -}}
{{- with $global.imageRegistry -}}
  {{- $first := splitList "/" $repository | first -}}
  {{- if and (contains "/" $repository) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
    {{- $repository = trimPrefix (printf "%s/" $first) $repository -}}
  {{- end -}}
  {{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The fields of a container that say where its image comes from. */}}
{{- define "upcloud.imageFields" -}}
image: {{ include "upcloud.image" . }}
{{- with (default dict .root.Values.global).imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* The fields of a Pod that every workload has: root, workload (its values). No workload runs on nodes without Linux. */}}
{{- define "upcloud.podFields" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .workload.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .workload.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (default dict .root.Values.global).imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Labels of a Pod: app (by which its Deployment knows it), workload. */}}
{{- define "upcloud.podMetadata" -}}
labels:
  app: {{ .app }}
  app.kubernetes.io/name: cloud-provider-upcloud
  {{- with .workload.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The security context of Pods without privileges. */}}
{{- define "upcloud.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The security context of containers without privileges. */}}
{{- define "upcloud.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Whether there are VolumeSnapshots: "true" or nothing. */}}
{{- define "upcloud.snapshots" -}}
{{- $kinds := .Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1/VolumeSnapshotClass" -}}
{{- if or (eq .Values.csi.snapshots "enabled") (and (eq .Values.csi.snapshots "auto") (or .Values.snapshotController.enabled $kinds)) -}}
true
{{- end -}}
{{- end }}

{{/* The ccm's configuration (data of its file) as JSON: ccm.config, with the cluster's ID unless it has one of its own. */}}
{{- define "upcloud.ccmConfig" -}}
{{- $config := deepCopy .Values.ccm.config -}}
{{- if and .Values.clusterID (not (hasKey $config "clusterID")) -}}
{{- $_ := set $config "clusterID" .Values.clusterID -}}
{{- end -}}
{{- toJson $config -}}
{{- end }}

{{/* The ConfigMap with the ccm's configuration, or nothing. */}}
{{- define "upcloud.ccmConfigMap" -}}
{{- if .Values.ccm.existingConfigMap -}}
{{- .Values.ccm.existingConfigMap -}}
{{- else if ne (include "upcloud.ccmConfig" .) "{}" -}}
upcloud-ccm-config
{{- end -}}
{{- end }}

{{/* Flags that every sidecar can have: root, sidecar (its values), port (of its metrics). */}}
{{- define "upcloud.sidecarArgs" -}}
{{- if .root.Values.csi.sidecars.metrics }}
- --http-endpoint=:{{ .port }}
{{- end }}
{{- range .sidecar.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "upcloud.sidecarPorts" -}}
{{- if .root.Values.csi.sidecars.metrics -}}
ports:
  - {name: {{ .name }}, containerPort: {{ .port }}}
{{- end }}
{{- end }}
