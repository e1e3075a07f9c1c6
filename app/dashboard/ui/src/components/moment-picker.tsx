import "@mantine/dates/styles.css";

import { DateTimePicker, type DateTimePickerProps } from "@mantine/dates";
import { useTranslation } from "react-i18next";

/** In a dialog, Escape in these closes the picker and not the dialog. Mantine itself marks only the calendar. */
const ownEscape = { "data-mantine-stop-propagation": true } as const;
const timeInputs = { hoursInputProps: ownEscape, minutesInputProps: ownEscape, secondsInputProps: ownEscape };

/** A moment, to the second; what it says is local: `YYYY-MM-DD HH:mm:ss`. */
export function MomentPicker(props: DateTimePickerProps) {
  const { t } = useTranslation();
  return (
    <DateTimePicker withSeconds valueFormat="YYYY-MM-DD HH:mm:ss" submitButtonProps={{ "aria-label": t("common.apply") }} timePickerProps={timeInputs} {...props} />
  );
}
