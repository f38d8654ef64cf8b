/**
 * The grammars of Kubernetes' names. Each function returns what is wrong, in the words that
 * clients see; an empty list is a valid name. Source: apimachinery, util/validation.
 */
const DNS1123_LABEL_MAX = 63;
const DNS1123_SUBDOMAIN_MAX = 253;
const LABEL_VALUE_MAX = 63;
const QUALIFIED_NAME_MAX = 63;

const LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const LABEL_1035 = '[a-z]([-a-z0-9]*[a-z0-9])?';
const SUBDOMAIN = `${LABEL}(\\.${LABEL})*`;
const NAME_PART = '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]';
const DNS1123_LABEL = new RegExp(`^${LABEL}$`);
const DNS1035_LABEL = new RegExp(`^${LABEL_1035}$`);
const DNS1123_SUBDOMAIN = new RegExp(`^${SUBDOMAIN}$`);
const QUALIFIED = new RegExp(`^${NAME_PART}$`);
const LABEL_VALUE = new RegExp(`^(${NAME_PART})?$`);
const RELAXED_ENV_NAME = /^[\x20-\x3c\x3e-\x7e]+$/;
const CONFIG_KEY = /^[-._a-zA-Z0-9]+$/;
const PORT_NAME = /^[-a-z0-9]+$/;

function tooLong(max: number): string {
  return `must be no more than ${max} characters`;
}

/** Name of a namespace, a container, a node port: `web-1`. */
export function dns1123Label(value: string): string[] {
  const problems = value.length > DNS1123_LABEL_MAX ? [tooLong(DNS1123_LABEL_MAX)] : [];
  if (value.length > DNS1123_LABEL_MAX || !DNS1123_LABEL.test(value)) {
    if (!DNS1123_LABEL.test(value)) {
      problems.push(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', " +
          "and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', " +
          `regex used for validation is '${LABEL}')`,
      );
    }
  }
  return problems;
}

/** Name of most objects: `a.example.com`. */
export function dns1123Subdomain(value: string): string[] {
  if (value.length > DNS1123_SUBDOMAIN_MAX) return [tooLong(DNS1123_SUBDOMAIN_MAX)];
  if (DNS1123_SUBDOMAIN.test(value)) return [];
  return [
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or " +
      "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used " +
      `for validation is '${SUBDOMAIN}')`,
  ];
}

/** Name of a Service: a label that begins with a letter. */
export function dns1035Label(value: string): string[] {
  const problems = value.length > DNS1123_LABEL_MAX ? [tooLong(DNS1123_LABEL_MAX)] : [];
  if (value.length <= DNS1123_LABEL_MAX && DNS1035_LABEL.test(value)) return problems;
  if (!DNS1035_LABEL.test(value)) {
    problems.push(
      "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an " +
        "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or " +
        `'abc-123', regex used for validation is '${LABEL_1035}')`,
    );
  }
  return problems;
}

/** What can stand in a URL path as one segment: names of roles and certificates. */
export function pathSegment(value: string): string[] {
  if (value === '.' || value === '..') return [`may not be '${value}'`];
  return ['/', '%']
    .filter((character) => value.includes(character))
    .map((character) => `may not contain '${character}'`);
}

/** Key of a label, an annotation, a resource: `example.com/name` or `name`. */
export function qualifiedName(value: string): string[] {
  const parts = value.split('/');
  const form = "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is ";
  const charset =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an " +
    `alphanumeric character ${form}'${NAME_PART}')`;
  if (parts.length > 2) {
    return [
      `a qualified name ${charset} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  const problems: string[] = [];
  const name = parts.at(-1) ?? '';
  if (parts.length === 2) {
    const prefix = parts[0] ?? '';
    if (prefix === '') problems.push('prefix part must be non-empty');
    else problems.push(...dns1123Subdomain(prefix).map((problem) => `prefix part ${problem}`));
  }
  if (name === '') problems.push('name part must be non-empty');
  else if (name.length > QUALIFIED_NAME_MAX) {
    problems.push(`name part ${tooLong(QUALIFIED_NAME_MAX)}`);
  }
  if (!QUALIFIED.test(name)) problems.push(`name part ${charset}`);
  return problems;
}

export function labelValue(value: string): string[] {
  const problems = value.length > LABEL_VALUE_MAX ? [tooLong(LABEL_VALUE_MAX)] : [];
  if (LABEL_VALUE.test(value)) return problems;
  problems.push(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or " +
      "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or " +
      `'my_value',  or '12345', regex used for validation is '(${NAME_PART})?')`,
  );
  return problems;
}

/** Name of an environment variable: any printable ASCII but `=`, since Kubernetes 1.34. */
export function environmentName(value: string): string[] {
  if (RELAXED_ENV_NAME.test(value)) return [];
  return [
    "a valid environment variable name must consist only of printable ASCII characters other than '='",
  ];
}

/** Key of ConfigMap and Secret data. */
export function configKey(value: string): string[] {
  if (value.length > DNS1123_SUBDOMAIN_MAX) return [tooLong(DNS1123_SUBDOMAIN_MAX)];
  if (!CONFIG_KEY.test(value)) {
    return [
      "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. " +
        "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is " +
        `'${CONFIG_KEY.source.slice(1, -1)}')`,
    ];
  }
  if (value === '.') return [`must not be '.'`];
  if (value === '..') return [`must not be '..'`];
  return value.startsWith('..') ? [`must not start with '..'`] : [];
}

/** Name of a container's port: IANA_SVC_NAME. */
export function portName(value: string): string[] {
  const problems: string[] = [];
  if (value.length > 15) problems.push('must be no more than 15 characters');
  if (!PORT_NAME.test(value)) {
    problems.push('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)');
  }
  if (!/[a-z]/.test(value)) problems.push('must contain at least one letter (a-z)');
  if (value.includes('--')) problems.push('must not contain consecutive hyphens');
  if (value.startsWith('-') || value.endsWith('-')) {
    problems.push('must not begin or end with a hyphen');
  }
  return problems;
}
