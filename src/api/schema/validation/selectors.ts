import { labelValue, qualifiedName } from '../../names.ts';
import { matchesLabelSelector } from '../../selectors.ts';
import type { LabelSelectorObject } from '../../selectors.ts';
import { fields, items, text, texts } from './report.ts';
import type { Fields, Report } from './report.ts';

/** A LabelSelector wherever it occurs. */
export function checkLabelSelector(selector: Fields, report: Report): void {
  for (const [key, value] of Object.entries(fields(selector['matchLabels']))) {
    report.at('matchLabels').invalidAll(key, qualifiedName(key));
    report.at('matchLabels').invalidAll(value, labelValue(String(value)));
  }
  items(selector['matchExpressions']).forEach((expression, index) => {
    const at = report.at('matchExpressions', index);
    const values = texts(expression['values']);
    const operator = text(expression['operator']);
    if (operator === 'In' || operator === 'NotIn') {
      if (values.length === 0) {
        at.at('values').required("must be specified when `operator` is 'In' or 'NotIn'");
      }
    } else if (operator === 'Exists' || operator === 'DoesNotExist') {
      if (values.length > 0) {
        at.at('values').forbidden(
          "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        );
      }
    } else at.at('operator').invalid(operator, 'not a valid selector operator');
    const key = text(expression['key']);
    at.at('key').invalidAll(key, qualifiedName(key));
    values.forEach((value, position) =>
      at.at('values', position).invalidAll(value, labelValue(value)),
    );
  });
}

/** The selector of a workload must be there, not be empty, and select its own template. */
export function checkOwnSelector(spec: Fields, kind: string, report: Report): void {
  const at = report.at('selector');
  const selector = spec['selector'];
  if (selector === undefined) {
    at.required();
    return;
  }
  const { matchLabels, matchExpressions } = fields(selector);
  const empty = Object.keys(fields(matchLabels)).length + items(matchExpressions).length === 0;
  if (empty) at.invalid(selector, `empty selector is invalid for ${kind}`);
  const labels = fields(fields(fields(spec['template'])['metadata'])['labels']);
  if (
    empty ||
    matchesLabelSelector(selector as LabelSelectorObject, labels as Record<string, string>)
  ) {
    return;
  }
  report
    .at('template', 'metadata', 'labels')
    .invalid(labels, '`selector` does not match template `labels`');
}
